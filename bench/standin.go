package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// standin plays the API: TLS with an ECDSA certificate, HTTP/2 or HTTP/1.1 as the client likes.
//
//	/small   reads a body, and answers with a little JSON
//	/stream  answers with one event at once, and with further ones when pace says so
//	/upload  reads a body no faster than uploadRate, all of them together
type standin struct {
	server *http.Server
	port   int
	caFile string
	roots  *x509.CertPool

	mu      sync.Mutex
	streams []*sending
	upload  time.Duration // when the next piece of an upload may be read
}

// sending is one stream, as its sender sees it.
type sending struct {
	tick chan struct{} // asks for an event
	sent int           // how many were sent; guarded by standin.mu
}

const (
	uploadRate  = 160 << 20 // bytes a second
	uploadPiece = 64 << 10
)

var smallAnswer = []byte(`{"id":"msg_01","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[{"type":"text","text":"` +
	strings.Repeat("la ", 30) + `"}],"stop_reason":"end_turn","usage":{"input_tokens":512,"output_tokens":30}}`)

func startStandin(dir string) (*standin, error) {
	s := &standin{caFile: filepath.Join(dir, "ca.pem"), roots: x509.NewCertPool()}
	certificate, err := s.certificate()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	mux := http.NewServeMux()
	mux.HandleFunc("POST /small", s.small)
	mux.HandleFunc("POST /stream", s.stream)
	mux.HandleFunc("POST /upload", s.receive)
	s.server = &http.Server{
		Handler:   flagged(mux),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}},
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: 10000},
		ErrorLog:  log.New(io.Discard, "", 0), // contenders are killed in the middle of their connections
	}
	go s.server.ServeTLS(l, "", "")
	return s, nil
}

// close ends all connections, and waits until the streams on them are gone.
func (s *standin) close() error {
	s.server.Close()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		streams, _ := s.sentEvents()
		if streams == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d streams are left over", streams)
		}
	}
}

// certificate makes an authority, whose certificate it writes to caFile, and a certificate of it for localhost.
func (s *standin) certificate() (tls.Certificate, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, authority, authority, &caKey.PublicKey, caKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, authority, &key.PublicKey, caKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	s.roots.AppendCertsFromPEM(text)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, os.WriteFile(s.caFile, text, 0o644)
}

// flagged refuses a request without the flag that the proxies are there to add.
func flagged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(strings.Join(r.Header.Values("anthropic-beta"), ","), "oauth-2025-04-20") {
			http.Error(w, "the beta flag is missing", http.StatusBadRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *standin) small(w http.ResponseWriter, r *http.Request) {
	if !readWhole(w, r, requestBody) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(smallAnswer)
}

func (s *standin) stream(w http.ResponseWriter, r *http.Request) {
	if !readWhole(w, r, requestBody) {
		return
	}
	st := &sending{tick: make(chan struct{}, 1)}
	s.mu.Lock()
	s.streams = append(s.streams, st)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.streams = slices.DeleteFunc(s.streams, func(other *sending) bool { return other == st })
	}()
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	flush := http.NewResponseController(w).Flush
	var buf [eventSize]byte
	for n := 0; ; n++ {
		w.Write(appendEvent(buf[:0], n, now()))
		if flush() != nil {
			return
		}
		s.mu.Lock()
		st.sent = n + 1
		s.mu.Unlock()
		select {
		case <-st.tick:
		case <-r.Context().Done():
			return
		}
	}
}

// receive reads an upload at its share of uploadRate.
func (s *standin) receive(w http.ResponseWriter, r *http.Request) {
	left := uploadBody()
	piece := make([]byte, uploadPiece)
	for len(left) > 0 {
		s.mu.Lock()
		turn := max(s.upload, now())
		s.upload = turn + uploadPiece*time.Second/uploadRate
		s.mu.Unlock()
		time.Sleep(turn - now())
		n, err := io.ReadFull(r.Body, piece[:min(len(piece), len(left))])
		if err != nil || !bytes.Equal(piece[:n], left[:n]) {
			http.Error(w, fmt.Sprint("not the body that was sent: ", err), http.StatusBadRequest)
			return
		}
		left = left[n:]
	}
	if readWhole(w, r, nil) {
		w.Write(smallAnswer)
	}
}

// readWhole reads the rest of the body and sees that it is what the clients sent.
func readWhole(w http.ResponseWriter, r *http.Request, want []byte) bool {
	got, err := io.ReadAll(r.Body)
	if err != nil || !bytes.Equal(got, want) {
		http.Error(w, fmt.Sprintf("%d bytes of body, which are not the %d that were sent: %v", len(got), len(want), err), http.StatusBadRequest)
		return false
	}
	return true
}

// sentEvents returns how many streams there are, and how many events were sent on them.
func (s *standin) sentEvents() (streams, events int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		events += st.sent
	}
	return len(s.streams), events
}
