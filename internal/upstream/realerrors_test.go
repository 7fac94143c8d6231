package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

// failed is the Error that err must be.
func failed(t *testing.T, err error) *Error {
	t.Helper()
	var e *Error
	assert.Assert(t, errors.As(err, &e), "%v", err)
	return e
}

// certificates are httptest's.
func certificates() []tls.Certificate {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return s.TLS.Certificates
}

// serveHTTP2 starts an upstream and returns its URL and a transport that trusts its certificate. maxHeaderBytes of 0 is net/http's default.
func serveHTTP2(t *testing.T, maxHeaderBytes int) (url string, rt *transport) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.MaxHeaderBytes = maxHeaderBytes
	s.StartTLS()
	rt = newTransport(Options{MaxIdleConns: 1})
	t.Cleanup(func() {
		rt.CloseIdleConnections()
		s.Close()
	})
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	rt.TLSClientConfig = &tls.Config{RootCAs: pool}
	return s.URL, rt
}

// get makes one attempt, with a header of the given size.
func get(ctx context.Context, t *testing.T, rt *transport, url string, size int) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	assert.NilError(t, err)
	r.Header.Set("X-Large", strings.Repeat("x", size))
	resp, err := (&attempt{next: rt, headerTimeout: time.Hour, idleTimeout: time.Minute}).roundTrip(r, time.Now())
	if err == nil {
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	return resp, err
}

// Row 2.5: a peer that says nothing more over HTTP/2 is noticed within 60 s, by net/http's text for a PING without an answer.
func TestUnansweredPing(t *testing.T) {
	config := &tls.Config{Certificates: certificates(), NextProtos: []string{"h2"}}
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		go func() {
			deaf := tls.Server(theirs, config)
			assert.Check(t, deaf.Handshake())
			go io.Copy(io.Discard, deaf)
			io.WriteString(deaf, "\x00\x00\x00\x04\x00\x00\x00\x00\x00") // SETTINGS, which are empty
		}()
		rt := newTransport(Options{})
		rt.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // no more than a test's own pipe
		rt.DialContext = func(context.Context, string, string) (net.Conn, error) { return ours, nil }
		start := time.Now()
		_, err := get(t.Context(), t, rt, "https://upstream/", 0)
		assert.Assert(t, time.Since(start) <= 60*time.Second, "it took %v", time.Since(start))
		e := failed(t, err)
		assert.Equal(t, e.Kind, Timeout)
		assert.Equal(t, e.Reason, "the connection died")
		assert.Equal(t, e.Sent, MayHaveBeenRead)
	})
}

// TestClassifyRealErrors provokes the other errors that have only a text.
func TestClassifyRealErrors(t *testing.T) {
	t.Run("row 2.1 a TLS handshake that takes too long", func(t *testing.T) {
		silent, err := net.Listen("tcp", "127.0.0.1:0")
		assert.NilError(t, err)
		defer silent.Close()
		rt := newTransport(Options{})
		rt.TLSHandshakeTimeout = time.Millisecond
		for _, reason := range []string{"TLS: the handshake did not finish", reasonProxy} {
			_, err = get(t.Context(), t, rt, "https://"+silent.Addr().String(), 0)
			e := failed(t, err)
			assert.DeepEqual(t, []any{e.Kind, e.Reason, e.Limit, e.Sent}, []any{Timeout, reason, handshakeTimeout, NothingSent})
			rt.Proxy = http.ProxyURL(&url.URL{Scheme: "https", Host: silent.Addr().String()})
		}
	})
	// On a new connection the upstream rejects the headers, later net/http knows the limit.
	for name, sizes := range map[string][]int{"a new connection": {24 << 10}, "a known limit": {0, 24 << 10}} {
		t.Run("row 2.10 headers too large for the upstream, "+name, func(t *testing.T) {
			url, rt := serveHTTP2(t, 16<<10)
			var err error
			for _, size := range sizes {
				assert.NilError(t, err)
				_, err = get(t.Context(), t, rt, url, size)
			}
			assert.Equal(t, failed(t, err).Kind, InvalidRequest, "%v", err)
		})
	}
	assert.Assert(t, headersRejected.MatchString("http2: Transport received GOAWAY from server ErrCode:COMPRESSION_ERROR"))
	const quoted = `http2: server sent GOAWAY and closed the connection; LastStreamID=1, ErrCode=ENHANCE_YOUR_CALM, debug="ErrCode=COMPRESSION_ERROR"`
	assert.Assert(t, !headersRejected.MatchString(quoted))
}

// Row 2.6: HTTP/2 is what the upstream offers, unless GODEBUG turns it off, as in any Go program.
func TestHTTP2CanBeTurnedOff(t *testing.T) {
	for godebug, protocol := range map[string]string{"": "HTTP/2.0", "http2client=0": "HTTP/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			t.Setenv("GODEBUG", godebug)
			url, rt := serveHTTP2(t, 0)
			resp, err := get(t.Context(), t, rt, url, 0)
			assert.NilError(t, err)
			assert.Equal(t, resp.Proto, protocol)
		})
	}
}
