package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// Rows 2.1, 2.5 and 2.6: what each error means. The texts are net/http's own, wrapped as it wraps them.
func TestClassify(t *testing.T) {
	op := func(op string, err error) error { return &net.OpError{Op: op, Net: "tcp", Err: err} }
	for _, tc := range []struct {
		err    error
		kind   Kind
		reason string
	}{
		{ErrHeaderTimeout, Timeout, "no response headers"},
		{op("dial", os.ErrDeadlineExceeded), Timeout, "cannot connect"},
		{op("dial", context.DeadlineExceeded), Timeout, "cannot connect"},
		{op("dial", os.NewSyscallError("socket", syscall.EMFILE)), Connection, "no file descriptors left"},
		{op("dial", os.NewSyscallError("connect", syscall.ECONNREFUSED)), Connection, "connection refused"},
		{op("dial", os.NewSyscallError("connect", syscall.EHOSTUNREACH)), Connection, "no route to the upstream"},
		{op("dial", &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}), Connection, "cannot resolve the upstream's name"},
		{op("dial", &net.DNSError{Err: "timeout", Name: "x", IsTimeout: true}), Timeout, "cannot resolve the upstream's name"},
		{op("read", os.NewSyscallError("read", syscall.ETIMEDOUT)), Timeout, "the connection died"},
		{op("write", os.NewSyscallError("write", syscall.EHOSTUNREACH)), Timeout, "the connection died"},
		{op("readfrom", op("write", os.NewSyscallError("write", syscall.ETIMEDOUT))), Timeout, "the connection died"},
		{op("read", os.NewSyscallError("read", syscall.ECONNRESET)), Connection, "connection reset"},
		{op("proxyconnect", op("dial", syscall.ECONNREFUSED)), Connection, "cannot connect through the proxy named by HTTPS_PROXY or HTTP_PROXY"},
		{fmt.Errorf("net/http: HTTP/1.x transport connection broken: %w", io.ErrUnexpectedEOF), Connection, "the upstream closed the connection"},
		{errors.New(`malformed HTTP response "SECRET"`), Connection, "the answer was not valid HTTP"},
		{streamError{Code: 2, Cause: errors.New("received from peer")}, Connection, "the upstream reset the HTTP/2 stream (INTERNAL_ERROR)"},
		{streamError{Code: 1, Cause: errors.New("SECRET")}, Connection, "the answer was not valid HTTP"},
		{op("proxyconnect", os.ErrDeadlineExceeded), Timeout, "cannot connect through the proxy named by HTTPS_PROXY or HTTP_PROXY"},
		{errors.New("stream error: stream ID 1; REFUSED_STREAM; received from peer"), Connection, "the upstream refused the request"},
		{errors.New("SECRET"), Connection, "no usable response"},
	} {
		got := classify(tc.err)
		assert.Equal(t, got.Kind, tc.kind, "%v", tc.err)
		assert.Equal(t, got.Reason, tc.reason, "%v", tc.err)
		assert.Assert(t, !strings.Contains(got.Error(), "SECRET"), "%v", got)
		assert.ErrorIs(t, got, tc.err)
	}
}

// trust makes a transport trust a test server's certificate.
func trust(rt *transport, s *httptest.Server) {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	rt.TLSClientConfig = &tls.Config{RootCAs: pool}
}

// silenced is a connection whose peer can be made deaf: what comes is not read any more.
type silenced struct {
	net.Conn
	deaf <-chan struct{}
}

func (c silenced) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	select {
	case <-c.deaf:
		<-make(chan struct{})
	default:
	}
	return n, err
}

type silencedListener struct {
	net.Listener
	deaf <-chan struct{}
}

func (l silencedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return silenced{c, l.deaf}, err
}

// Row 2.5: net/http's text for a PING without an answer.
func TestUnansweredPing(t *testing.T) {
	deaf := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(deaf)
		<-make(chan struct{})
	}))
	s.EnableHTTP2 = true
	s.Listener = silencedListener{s.Listener, deaf}
	s.StartTLS()
	rt := newTransport(Options{HeaderTimeout: time.Minute})
	trust(rt, s)
	rt.HTTP2.SendPingTimeout, rt.HTTP2.PingTimeout = 50*time.Millisecond, 50*time.Millisecond
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL, strings.NewReader("a"))
	assert.NilError(t, err)
	_, err = (&attempt{next: rt, headerTimeout: time.Minute, idleTimeout: time.Minute}).roundTrip(r, time.Now())
	var failed *Error
	assert.Assert(t, errors.As(err, &failed), "%v", err)
	assert.Equal(t, failed.Kind, Timeout)
	assert.Equal(t, failed.Reason, "the connection died")
	assert.Equal(t, failed.Sent, MayHaveBeenRead)
}
