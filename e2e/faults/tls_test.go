package faults

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// socket is an upstream that is only a listener and what happens to each connection.
type socket struct {
	listener net.Listener
	address  string
	env      []string
	serving  sync.WaitGroup
	closing  chan struct{}
	once     sync.Once
	accepted chan struct{} // has an element for every connection
}

func newSocket(t *testing.T, handle func(s *socket, conn *net.TCPConn)) *socket {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	_, env := goodCertificate(t)
	s := &socket{listener: listener, address: "https://" + listener.Addr().String(), env: env,
		closing: make(chan struct{}), accepted: make(chan struct{}, 1000)}
	s.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.accepted <- struct{}{}
			s.serving.Go(func() {
				defer conn.Close()
				handle(s, conn.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(s.close)
	return s
}

func (s *socket) url() string           { return s.address }
func (s *socket) environment() []string { return s.env }

func (s *socket) close() {
	s.once.Do(func() { close(s.closing) })
	s.listener.Close()
	s.serving.Wait()
}

// TestUnreachable are upstreams with which no request gets as far as HTTP.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	ca, err := trusted()
	assert.NilError(t, err)
	stranger, err := newAuthority()
	assert.NilError(t, err)
	// serve is an upstream with a certificate of its own; if it is reached after all, it answers.
	serve := func(by *authority, change func(*x509.Certificate), protocols ...string) func(*testing.T) func(*socket, *net.TCPConn) {
		return func(t *testing.T) func(*socket, *net.TCPConn) {
			config := &tls.Config{Certificates: []tls.Certificate{by.issue(t, change)}, NextProtos: protocols}
			return func(_ *socket, conn *net.TCPConn) {
				c := tls.Server(conn, config)
				c.SetDeadline(time.Now().Add(patience))
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}
	}
	after := func(do func(conn *net.TCPConn)) func(*testing.T) func(*socket, *net.TCPConn) {
		return func(*testing.T) func(*socket, *net.TCPConn) {
			return func(_ *socket, conn *net.TCPConn) {
				conn.Read(make([]byte, 16<<10)) // the beginning of the handshake
				do(conn)
				conn.CloseWrite()
				io.Copy(io.Discard, conn) // to close it with something unread would be a reset
			}
		}
	}
	never := func(*testing.T) func(s *socket, _ *net.TCPConn) {
		return func(s *socket, _ *net.TCPConn) { <-s.closing }
	}
	for _, tt := range []struct {
		name    string
		handle  func(t *testing.T) func(*socket, *net.TCPConn)
		change  func(s *socket)
		want    end
		reason  string
		retries int
	}{
		{name: "refuses", handle: never, change: func(s *socket) { s.listener.Close() }, want: failed, reason: "connection refused"},
		{name: "refuses, without TLS", handle: never, change: func(s *socket) {
			s.listener.Close()
			s.address = strings.Replace(s.address, "https:", "http:", 1)
		}, want: failed, reason: "connection refused"},
		{name: "accepts and stays silent, without TLS", handle: never, change: func(s *socket) { s.address = strings.Replace(s.address, "https:", "http:", 1) },
			want: timedOut, reason: "timeout after 1s (1 attempts): no response headers"},
		{name: "the handshake hangs", handle: never, want: timedOut, reason: "timeout after 1s (1 attempts)"},
		{name: "the handshake hangs, twice", handle: never, want: timedOut, reason: "timeout after 1s (2 attempts)", retries: 1},
		{name: "FIN in the handshake", handle: after(func(conn *net.TCPConn) {}), want: failed, reason: "closed the connection"},
		{name: "RST in the handshake", handle: after(func(conn *net.TCPConn) { conn.SetLinger(0); conn.Close() }), want: failed, reason: "connection reset"},
		{name: "not TLS", handle: after(func(conn *net.TCPConn) { io.WriteString(conn, "HTTP/1.1 400 "+hush+"\r\n\r\n") }), want: failed, reason: "TLS"},
		{name: "garbage", handle: after(func(conn *net.TCPConn) { io.WriteString(conn, hush) }), want: failed, reason: "TLS"},
		{name: "TLS of a strange version", handle: after(func(conn *net.TCPConn) { conn.Write([]byte{22, 0x99, 9, 0, 1, 2}) }), want: failed, reason: "TLS"},
		{name: "an alert", handle: after(func(conn *net.TCPConn) { conn.Write([]byte{21, 3, 3, 0, 2, 2, 40}) }), want: failed, reason: "TLS"},
		{name: "a certificate that expired", handle: serve(ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }), want: failed, reason: "certificate is not trusted"},
		{name: "a certificate of tomorrow", handle: serve(ca, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }), want: failed, reason: "certificate is not trusted"},
		{name: "a certificate for another name", handle: serve(ca, func(c *x509.Certificate) {
			c.IPAddresses, c.DNSNames = nil, []string{hush + ".example"}
		}), want: failed, reason: "certificate is not trusted"},
		{name: "a certificate for clients", handle: serve(ca, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), want: failed, reason: "certificate is not trusted"},
		{name: "a certificate of an unknown CA", handle: serve(stranger, nil), want: failed, reason: "certificate is not trusted"},
		{name: "a certificate of its own", handle: serve(&authority{&x509.Certificate{}, stranger.key}, nil), want: failed, reason: "certificate is not trusted"},
		{name: "no protocol in common", handle: serve(ca, nil, "h3"), want: failed, reason: "TLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newSocket(t, tt.handle(t))
			if tt.change != nil {
				tt.change(up)
			}
			settings := []string{fmt.Sprint("retries = ", tt.retries)}
			if tt.want == timedOut {
				settings = append(settings, "timeout_secs = 1")
			}
			w := newWorld(t, up, settings...)
			for _, path := range []string{"/first", "/second"} {
				c := w.post(path, upload(100<<10))
				_, logged := w.ended(c, tt.want)
				assert.Assert(t, strings.Contains(c.body.String(), tt.reason), c.body.String())
				assert.Equal(t, logged["attempts"], float64(tt.retries+1))
			}
			assert.Assert(t, len(up.accepted) <= 2*(tt.retries+1), "%d connections for two requests", len(up.accepted))
		})
	}
}

// An HTTPS upstream without HTTP/2 is served over HTTP/1.1.
func TestH1OverTLS(t *testing.T) {
	t.Parallel()
	for _, protocols := range [][]string{nil, {"http/1.1"}} {
		t.Run(fmt.Sprint(protocols), func(t *testing.T) {
			t.Parallel()
			cert, env := goodCertificate(t)
			listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: protocols})
			assert.NilError(t, err)
			up := newH1UpstreamOn(t, listener, "https", env)
			w := newH1World(t, up)
			up.on("/broken", func(r *h1request) {
				r.stream()
				r.send(event)
				r.fin()
			})
			up.on("/none", func(r *h1request) { r.whole(); r.fin() })
			for i := range 3 {
				w.ended(w.post(fmt.Sprint("/good-", i), upload(1<<20)), answered)
				w.ended(w.post("/broken", "{}"), broken)
				w.ended(w.post("/none", "{}"), failed)
			}
			w.undisturbed()
		})
	}
}

// An upstream may change its mind about the protocol, as one that is being replaced does.
func TestProtocolChanges(t *testing.T) {
	t.Parallel()
	up := newH2Upstream(t)
	up.hello = func(c *h2conn) bool {
		if c.tls.ConnectionState().NegotiatedProtocol == "h2" {
			c.set()
			return true
		}
		in := make([]byte, 64<<10)
		for { // HTTP/1.1, in the simplest way: requests without a body, one read each
			n, err := c.tls.Read(in)
			if err != nil {
				return false
			}
			if path := strings.Fields(string(in[:n]))[1]; path == "/last" {
				io.WriteString(c.tls, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
				return false
			}
			io.WriteString(c.tls, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}
	var mu sync.Mutex
	protocol := "h2"
	next := func(p string) {
		mu.Lock()
		defer mu.Unlock()
		protocol = p
	}
	up.tls.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		return &tls.Config{Certificates: up.tls.Certificates, NextProtos: []string{protocol}}, nil
	}
	w := newH2World(t, up)
	for i := range 3 {
		next("http/1.1")
		if i > 0 {
			up.find(fmt.Sprint("/two-", i-1)).goAway(1<<31-1, 0)
		}
		w.ended(w.request("GET", fmt.Sprint("/one-", i), ""), answered)
		w.ended(w.request("GET", fmt.Sprint("/one-again-", i), ""), answered)
		next("h2")
		w.ended(w.request("GET", "/last", ""), answered)
		w.ended(w.request("GET", fmt.Sprint("/two-", i), ""), answered)
		assert.Equal(t, up.requests(fmt.Sprint("/two-", i)), 1)
	}
	w.undisturbed()
}
