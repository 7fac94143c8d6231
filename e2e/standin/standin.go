// Package standin is a stand-in for the Anthropic API. It is for tests, and for trying the proxy without internet or an account. It is a
// server on loopback. It is as strict as the original where a proxy could make a mistake:
//
//   - an OAuth token without the beta flag oauth-2025-04-20 is refused with 401 (auth.go);
//   - a beta flag that nobody knows, or that comes twice, is refused with 400, and so is the
//     body field of a beta whose flag is missing (betas.go, body.go);
//   - a body must have the required fields (body.go).
//
// Its answers look like the original's too: events and pings (events.go), errors (errors.go),
// request-id and rate-limit headers (edge.go). A Scene makes it misbehave.
//
// Besides the API it serves Parts (playoptions.go, play.go), where the request itself says what happens. They are for load, and for tests that
// do not depend on the API's rules. attempts.go has what a test can do meanwhile. Every certificate comes from an Authority
// (authority.go).
//
// Error texts are the original's where those are publicly known.
package standin

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options choose how the server is reached. The zero value is what the original offers:
// TLS with HTTP/2 and HTTP/1.1, here on a free loopback port.
type Options struct {
	Addr     string       // default 127.0.0.1:0
	Listener net.Listener // instead of Addr
	HTTP1    bool         // do not offer HTTP/2
	Plain    bool         // no TLS, and therefore no HTTP/2
	CAFile   string       // where the CA certificate goes; default: a new temporary file
	Streams  int          // how many streams one HTTP/2 connection may carry; default: net/http's

	// Log, if set, gets one line per request. It never sees a credential or a body.
	Log func(format string, args ...any)
}

// Server is a running stand-in.
type Server struct {
	URL    string // https://127.0.0.1:port, or http:// when Plain
	CAFile string // for SSL_CERT_FILE; empty when Plain
	CA     *Authority

	log     func(format string, args ...any)
	http    *http.Server
	tempDir string

	mu       sync.Mutex
	requests []*Request
	next     int           // index of the request that Next returns
	changed  chan struct{} // closed and renewed when a request comes or ends
	scenes   []Scene

	// For Parts:
	attempts map[string]attempts
	posts    int
	released chan struct{} // closed and renewed by Release
	streams  []*sending    // the paced ones
	turn     time.Duration // when the next piece of a slow body may be read
	conns    []net.Conn
	hangups  atomic.Int64 // how many are still to be sent
}

// Start listens and serves until Close.
func Start(o Options) (*Server, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	s := &Server{log: o.Log, changed: make(chan struct{}), released: make(chan struct{}), attempts: map[string]attempts{}}
	if s.log == nil {
		s.log = func(string, ...any) {}
	}
	ln := o.Listener
	if ln == nil {
		var err error
		if ln, err = net.Listen("tcp", o.Addr); err != nil {
			return nil, fmt.Errorf("listen: %w", err)
		}
	}
	s.http = &http.Server{
		Handler:   s.handler(),
		Protocols: new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          o.Streams,
			MaxReadFrameSize:              16 << 10, // the protocol's default; net/http's client keeps a buffer as large as the largest frame
			MaxReceiveBufferPerConnection: window,
			MaxReceiveBufferPerStream:     window,
		},
		ConnState: s.track,
		ErrorLog:  log.New(io.Discard, "", 0), // handshakes that a test breaks on purpose
	}
	s.http.Protocols.SetHTTP1(true)
	s.http.Protocols.SetHTTP2(!o.HTTP1 && !o.Plain)
	if o.Plain {
		s.URL = "http://" + ln.Addr().String()
		go s.http.Serve(ln)
		return s, nil
	}
	if err := s.useTLS(o.CAFile, ln.Addr().(*net.TCPAddr).IP); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	s.URL = "https://" + ln.Addr().String()
	go s.http.ServeTLS(ln, "", "")
	return s, nil
}

// window is the largest that net/http allows, so that a distant upload waits only for the distance.
const window = 4<<20 - 1

func (s *Server) useTLS(caFile string, ip net.IP) error {
	if caFile == "" {
		dir, err := os.MkdirTemp("", "standin-")
		if err != nil {
			return fmt.Errorf("folder for the CA: %w", err)
		}
		s.tempDir, caFile = dir, filepath.Join(dir, "ca.pem")
	}
	ca, err := NewAuthority()
	if err != nil {
		return fmt.Errorf("make CA: %w", err)
	}
	cert, err := ca.Issue(func(c *x509.Certificate) { c.IPAddresses = append(c.IPAddresses, ip) })
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	if err := ca.Write(caFile); err != nil {
		return fmt.Errorf("write CA: %w", err)
	}
	s.CA, s.CAFile = ca, caFile
	s.http.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	return nil
}

// Addr returns host and port on which it listens.
func (s *Server) Addr() string {
	_, addr, _ := strings.Cut(s.URL, "://")
	return addr
}

// Close ends every connection at once.
func (s *Server) Close() error {
	err := s.http.Close()
	if s.tempDir != "" {
		err = errors.Join(err, os.RemoveAll(s.tempDir))
	}
	return err
}
