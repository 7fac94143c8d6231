package doctor_test

import (
	"bytes"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

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
	assert.Assert(t, is.Contains(out, "401 authentication_error, as it should be (request-id req_theirs)"))
}

// Each failure names its step and a place to look.
func TestFailures(t *testing.T) {
	answer := func(status int, contentType, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			io.WriteString(w, body)
		}))
		t.Cleanup(s.Close)
		return s.URL
	}
	untrusted := httptest.NewUnstartedServer(http.HandlerFunc(refuse))
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	untrusted.StartTLS()
	defer untrusted.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	closed.Close()
	for _, tc := range []struct{ upstream, failed, hint string }{
		{"http://name.invalid", "dns       FAILED: cannot resolve", "NetworkPolicy"},
		{"http://" + closed.Addr().String(), "connect   FAILED: connection refused", "NetworkPolicy"},
		{untrusted.URL, "tls       FAILED: TLS: the upstream's certificate is not trusted", "SSL_CERT_FILE"},
		{strings.Replace(answer(200, "", ""), "http:", "https:", 1), "tls       FAILED: TLS: the upstream does not speak TLS", "https port"},
		{answer(200, "text/html", "<html>log in"), `request   FAILED: answered 200 with "text/html"`, "captive portal"},
		{answer(401, "application/json", `{"error":{"type":"proxy_error"}}`), "request   FAILED: answered 401", "something else answered"},
		{answer(529, "application/json", `{"type":"error","error":{"type":"overloaded_error"}}`), `request   FAILED: the API answered 529 "overloaded_error"`, "status page"},
	} {
		ok, out := examine(t, tc.upstream)
		assert.Assert(t, !ok)
		assert.Assert(t, is.Contains(out, tc.failed))
		assert.Assert(t, is.Contains(out, tc.hint))
	}
}

// net/http and crypto/x509 read their environment once a process, so these two run in one of their own.
func TestEnvironment(t *testing.T) {
	if upstream := os.Getenv("DOCTOR_TEST_UPSTREAM"); upstream != "" {
		_, out := examine(t, upstream)
		t.Log(out)
		return
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(refuse))
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
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
	out = run("DOCTOR_TEST_UPSTREAM=https://upstream.example", "HTTPS_PROXY="+strings.Replace(proxy.URL, "http://", "http://user:SECRET@", 1))
	assert.Assert(t, is.Contains(out, "proxy     "+proxy.Listener.Addr().String()))
	assert.Assert(t, is.Contains(out, "proxy     FAILED: the proxy named by HTTPS_PROXY refuses to connect"))
	assert.Assert(t, !strings.Contains(out, "SECRET"), out)
}
