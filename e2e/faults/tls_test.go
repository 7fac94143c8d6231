package faults

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// TestUnreachable are upstreams with which no request gets as far as HTTP.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	ca, err := trusted()
	assert.NilError(t, err)
	stranger, err := standin.NewAuthority()
	assert.NilError(t, err)
	// certified is an upstream with a certificate of its own; if it is reached after all, it answers.
	certified := func(by *standin.Authority, change func(*x509.Certificate), protocols ...string) func(net.Conn) {
		cert, err := by.Issue(change)
		assert.NilError(t, err)
		return func(conn net.Conn) {
			c := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: protocols})
			c.SetDeadline(time.Now().Add(patience))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}
	after := func(do func(conn *net.TCPConn)) func(net.Conn) {
		return func(c net.Conn) {
			conn := c.(*net.TCPConn)
			conn.Read(make([]byte, 16<<10)) // the beginning of the handshake
			do(conn)
			conn.CloseWrite()
			io.Copy(io.Discard, conn) // to close it with something unread would be a reset
		}
	}
	never := func(conn net.Conn) { io.Copy(io.Discard, conn) }
	const untrusted, noHandshake, noEnd = "TLS: the upstream's certificate is not trusted", "TLS: the handshake failed", "TLS: the handshake did not finish"
	for _, tt := range []struct {
		name     string
		serve    func(net.Conn)
		reason   string
		settings string
	}{
		{"refuses", nil, "connection refused", ""},
		{"the handshake hangs", never, "timeout after 10s (1 attempts): " + noEnd, "timeout_secs = 600"},
		{"the handshake hangs, for a second", never, "timeout after 1s (1 attempts): " + noEnd, "timeout_secs = 1"},
		{"FIN in the handshake", after(func(conn *net.TCPConn) {}), closedConnection, ""},
		{"RST in the handshake", after(func(conn *net.TCPConn) { conn.SetLinger(0); conn.Close() }), "connection reset", ""},
		{"not TLS", after(func(conn *net.TCPConn) { io.WriteString(conn, "HTTP/1.1 400 "+hush+"\r\n\r\n") }), "TLS: the upstream does not speak TLS on this port", ""},
		{"an alert", after(func(conn *net.TCPConn) { conn.Write([]byte{21, 3, 3, 0, 2, 2, 40}) }), noHandshake, ""},
		{"a certificate that expired", certified(ca, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }), "TLS: the upstream's certificate has expired", ""},
		{"a certificate for another name", certified(ca, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{hush + ".example"} }), "TLS: the upstream's certificate is for another name", ""},
		{"a certificate of an unknown CA", certified(stranger, nil), untrusted, ""},
		{"no protocol in common", certified(ca, nil, "h3"), noHandshake, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := newStage[*h1request](t, listen(t), "https")
			up.start(tt.serve)
			if tt.serve == nil {
				up.listener.Close()
			}
			want, settings := failed, []string{}
			if tt.settings != "" {
				want, settings = timedOut, []string{tt.settings}
			}
			w := newWorld(t, up.upstream(), settings...)
			first, second := w.post("/first", upload(100<<10)), w.post("/second", "{}")
			for _, c := range []*conn{first, second} {
				_, logged := w.ended(c, want)
				assert.Assert(t, strings.Contains(c.body.String(), tt.reason), c.body.String())
				w.tells(logged, tt.reason)
				assert.Equal(t, logged["attempts"], 1.0)
				assert.Equal(t, c.res.Header.Get("X-Should-Retry"), "", "nothing was sent")
			}
			assert.Assert(t, up.connections() <= 2, "%d connections for two requests", up.connections())
		})
	}
}
