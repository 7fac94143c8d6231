package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// What is wrong with a certificate is told apart, in net/http's own errors.
func TestCertificateReasons(t *testing.T) {
	now := time.Now()
	for want, cert := range map[string]*x509.Certificate{
		"TLS: the upstream's certificate has expired":         {NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}},
		"TLS: the upstream's certificate is not valid yet":    {NotBefore: now.Add(time.Hour), NotAfter: now.Add(2 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}},
		"TLS: the upstream's certificate is for another name": {NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), DNSNames: []string{"other.example"}},
		"TLS: the upstream's certificate is not trusted":      nil, // httptest's own
	} {
		t.Run(want, func(t *testing.T) {
			s := httptest.NewUnstartedServer(http.NotFoundHandler())
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			rt := newTransport(Options{})
			if cert != nil {
				key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
				assert.NilError(t, err)
				cert.SerialNumber, cert.IsCA, cert.BasicConstraintsValid = big.NewInt(1), true, true
				der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
				assert.NilError(t, err)
				s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
			}
			s.StartTLS()
			defer s.Close()
			if cert != nil {
				trust(rt, s)
			}
			failed := failure(t, rt, s.URL, "")
			assert.Equal(t, failed.Kind, Connection)
			assert.Equal(t, failed.Reason, want)
			assert.Equal(t, failed.Sent, NothingSent)
		})
	}
}

// Row 2.1: net/http's text for a TLS handshake that takes too long.
func TestHandshakeTimeout(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer silent.Close()
	rt := newTransport(Options{})
	rt.TLSHandshakeTimeout = time.Millisecond
	failed := failure(t, rt, "https://"+silent.Addr().String(), "")
	assert.Equal(t, failed.Kind, Timeout)
	assert.Equal(t, failed.Reason, "TLS: the handshake did not finish")
	assert.Equal(t, failed.Limit, handshakeTimeout)
	assert.Equal(t, failed.Sent, NothingSent)
}

// Row 2.10: net/http's texts for headers beyond what an HTTP/2 upstream takes: on a new connection the upstream rejects them, later net/http
// knows the limit.
func TestHeadersTooLargeForTheUpstream(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.EnableHTTP2 = true
	s.Config.MaxHeaderBytes = 16 << 10
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	for _, name := range []string{"new connection", "known limit"} {
		t.Run(name, func(t *testing.T) {
			rt := newTransport(Options{MaxIdleConns: 1})
			trust(rt, s)
			if name == "known limit" {
				first, err := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
				assert.NilError(t, err)
				resp, err := rt.RoundTrip(first)
				assert.NilError(t, err)
				resp.Body.Close()
			}
			failed := failure(t, rt, s.URL, strings.Repeat("x", 24<<10))
			assert.Equal(t, failed.Kind, InvalidRequest, "%v", failed.Err)
		})
	}
}

// failure is what an attempt at url fails with.
func failure(t *testing.T, rt *transport, url, header string) *Error {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	assert.NilError(t, err)
	r.Header.Set("X-Large", header)
	_, err = (&attempt{next: rt, headerTimeout: time.Minute, idleTimeout: time.Minute}).roundTrip(r, time.Now())
	var failed *Error
	assert.Assert(t, errors.As(err, &failed), "%v", err)
	return failed
}
