package doctor_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/doctor"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

func examine(t *testing.T, upstream string) (bool, string) {
	up, err := url.Parse(upstream)
	assert.NilError(t, err)
	var out bytes.Buffer
	ok := doctor.Run(t.Context(), up, &out)
	return ok, out.String()
}

func refuse(w http.ResponseWriter, r *http.Request) {
	if r.Method != "POST" || !strings.HasSuffix(r.URL.Path, "/v1/messages") || r.Header.Get("Authorization")+r.Header.Get("X-Api-Key") != "" {
		http.Error(w, "unexpected", http.StatusTeapot)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Request-Id", "req_theirs")
	w.WriteHeader(http.StatusUnauthorized)
	io.WriteString(w, `{"type":"error","error":{"type":"authentication_error","message":"x-api-key header is required"}}`)
}

// The API's own refusal, with nothing that would authenticate, means that all is well.
func TestHealthy(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(refuse))
	defer s.Close()
	ok, out := examine(t, s.URL+"/prefix/")
	assert.Assert(t, ok, out)
	assert.Assert(t, is.Contains(out, "connect   127.0.0.1:"))
	assert.Assert(t, is.Contains(out, "401 authentication_error, as expected (request-id req_theirs)"))
}

// Each failure names its step and where to look. In a cluster this may be a NetworkPolicy, but not on a developer's machine.
func TestFailures(t *testing.T) {
	answer := func(status int, header, value, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(header, value)
			w.WriteHeader(status)
			io.WriteString(w, body)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	const contentType = "Content-Type"
	apiError := func(status int, kind string) string {
		return answer(status, contentType, "application/json", `{"type":"error","error":{"type":"`+kind+`"}}`)
	}
	secure := serveTLS(t, refuse, nil)
	secureAddr := secure.Listener.Addr().String()
	plain := answer(200, contentType, "", "")
	refused := listen(t, func(net.Conn) {})
	refused.Close()
	breaksOff := listen(t, func(conn net.Conn) {
		conn.Read(make([]byte, 1000))
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
	})
	hangsUp := listen(t, func(conn net.Conn) { conn.Read(make([]byte, 1000)) })
	const badCert = "tls       FAILED: TLS: the upstream's certificate "
	for _, tt := range []struct{ upstream, failed, hint, inCluster string }{
		{"http://name.invalid", "dns       FAILED: cannot resolve", "is upstream_url spelt right", "NetworkPolicy allow UDP and TCP port 53"},
		{"http://" + refused.Addr().String(), "connect   FAILED: connection refused", "nothing listens on " + refused.Addr().String(), "Does the NetworkPolicy allow it?"},
		{"http://224.0.0.1:81", "connect   FAILED: ", "is there a route to 224.0.0.1:81", "Does the NetworkPolicy allow it?"},
		{secure.URL, badCert + "is not trusted (", "the upstream's certificate, or that of something in between: its CA is not trusted here. SSL_CERT_FILE can name", ""},
		{withCertificate(t, "127.0.0.1", -2*day, -day), badCert + "has expired (", "it expired at ", ""},
		{withCertificate(t, "127.0.0.1", day, 2*day), badCert + "is not valid yet (", "it is not valid yet, only from ", ""},
		{withCertificate(t, "192.0.2.1", -day, day), badCert + "is for another name (", "it is for another name", ""},
		{strings.Replace(plain, "http:", "https:", 1), "tls       FAILED: ", strings.TrimPrefix(plain, "http://") + " does not speak TLS: is it http://", ""},
		{"http://" + secureAddr, `request   FAILED: answered 400`, secureAddr + " speaks TLS: upstream_url must begin with https://", ""},
		{"http://" + hangsUp.Addr().String(), "request   FAILED: ", "the connection was made and then broke", ""},
		{"http://" + breaksOff.Addr().String(), "request   FAILED: the answer broke off", "the connection was made and then broke", ""},
		{answer(200, contentType, "text/html", "<html>log in"), `request   FAILED: answered 200 with "text/html" instead of the API's 401`, "captive portal", ""},
		{answer(301, "Location", "https://user:SECRET@elsewhere/?q=SECRET", ""), `request   FAILED: answered 301`, "it redirects to https://elsewhere, and", ""},
		{answer(407, contentType, "text/html", ""), `request   FAILED: answered 407`, "wants credentials", ""},
		{apiError(502, "proxy_error"), `request   FAILED: answered 502 "proxy_error"`, "this is another anthropic-oauth-proxy, or this one", ""},
		{apiError(529, "overloaded_error"), `request   FAILED: answered 529 "overloaded_error"`, "the API has trouble", ""},
		{apiError(429, "rate_limit_error"), `request   FAILED: answered 429 "rate_limit_error"`, "the API has trouble", ""},
		{apiError(404, "not_found_error"), `request   FAILED: answered 404 "not_found_error"`, "is the path in upstream_url right?", ""},
	} {
		for _, cluster := range []string{"", "10.0.0.1"} {
			t.Setenv("KUBERNETES_SERVICE_HOST", cluster)
			ok, out := examine(t, tt.upstream)
			assert.Check(t, !ok)
			assert.Check(t, is.Contains(out, tt.failed))
			_, hint, _ := strings.Cut(out, "\nhint ")
			assert.Check(t, is.Contains(hint, tt.hint))
			assert.Check(t, strings.Contains(hint, "NetworkPolicy") == (cluster != "" && tt.inCluster != ""), hint)
			assert.Check(t, cluster == "" || strings.Contains(hint, tt.inCluster), hint)
			assert.Check(t, !strings.Contains(hint, " 443 ") && !strings.Contains(out, "SECRET"), out)
		}
	}
}

const day = 24 * time.Hour

// withCertificate starts a server with a certificate for an address, valid from and until the given times from now.
func withCertificate(t *testing.T, address string, from, until time.Duration) (url string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	assert.NilError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.ParseIP(address)},
		NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	assert.NilError(t, err)
	return serveTLS(t, refuse, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}).URL
}

// serveTLS starts a server with httptest's certificate, if config has none.
func serveTLS(t *testing.T, handler http.HandlerFunc, config *tls.Config) *httptest.Server {
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = config
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// listen serves each connection by a function that need not close it.
func listen(t *testing.T, serve func(net.Conn)) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serve(conn)
			conn.Close()
		}
	}()
	return listener
}

// net/http and crypto/x509 read their environment once, so each case runs in its own process.
func TestEnvironment(t *testing.T) {
	if upstream := os.Getenv("DOCTOR_TEST_UPSTREAM"); upstream != "" {
		_, out := examine(t, upstream)
		t.Log(out)
		return
	}
	s := serveTLS(t, refuse, &tls.Config{NextProtos: []string{"h2"}})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	assert.NilError(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600))
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer proxy.Close()

	run := func(env ...string) string {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestEnvironment$", "-test.v")
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		assert.NilError(t, err, "%s", out)
		return string(out)
	}
	out := run("DOCTOR_TEST_UPSTREAM="+s.URL, "SSL_CERT_FILE="+ca)
	assert.Assert(t, is.Contains(out, "TLS 1.3, HTTP/2, certificate of"))
	assert.Assert(t, is.Contains(out, "ok        the upstream is reachable"))
	assert.Assert(t, !strings.Contains(out, "hint"), out)
	out = run("DOCTOR_TEST_UPSTREAM=https://upstream.example", "HTTPS_PROXY="+strings.Replace(proxy.URL, "http://", "http://user:SECRET@", 1))
	assert.Assert(t, is.Contains(out, "proxy     "+proxy.Listener.Addr().String()))
	assert.Assert(t, is.Contains(out, "proxy     FAILED: the proxy named by HTTPS_PROXY refuses to connect"))
	assert.Assert(t, is.Contains(out, "hint      HTTPS_PROXY or HTTP_PROXY names a proxy that cannot be reached"))
	assert.Assert(t, !strings.Contains(out, "SECRET"), out)

	// An https:// proxy has its own certificate. The upstream's comes later, through the tunnel.
	secureProxy := serveTLS(t, func(w http.ResponseWriter, _ *http.Request) {
		upstream, err := net.Dial("tcp", s.Listener.Addr().String())
		assert.Check(t, err)
		defer upstream.Close()
		conn, _, err := http.NewResponseController(w).Hijack()
		assert.Check(t, err)
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go io.Copy(upstream, conn)
		io.Copy(conn, upstream)
	}, nil)
	out = run("DOCTOR_TEST_UPSTREAM=https://example.com", "HTTPS_PROXY="+secureProxy.URL)
	assert.Assert(t, is.Contains(out, "proxy     FAILED: cannot connect through the proxy named by HTTPS_PROXY or HTTP_PROXY ("))
	assert.Assert(t, is.Contains(out, "certificate signed by unknown authority)"))
	assert.Assert(t, is.Contains(out, "hint      this is the certificate of the proxy that HTTPS_PROXY or HTTP_PROXY names: its CA is not trusted here"))
	out = run("DOCTOR_TEST_UPSTREAM=https://example.com", "HTTPS_PROXY="+secureProxy.URL, "SSL_CERT_FILE="+ca)
	assert.Assert(t, is.Contains(out, "proxy     TLS 1.3, HTTP/1.1, certificate of"))
	assert.Assert(t, is.Contains(out, "tls       TLS 1.3, HTTP/2, certificate of"))
	assert.Assert(t, is.Contains(out, "ok        the upstream is reachable"))
}
