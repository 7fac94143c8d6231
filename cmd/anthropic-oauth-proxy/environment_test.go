package main

import (
	"crypto/tls"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// nowhere is a host that only a forward proxy can find. A label of 64 letters is invalid, so a look-up fails without asking a name server.
// httptest's certificate is valid for it and for 127.0.0.1.
var nowhere = strings.Repeat("x", 64) + ".example.com"

// newTLSUpstream starts an upstream and returns its address and the file with its certificate.
func newTLSUpstream(t *testing.T) (addr, certFile string) {
	t.Helper()
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(echo))
	upstream.Config.ErrorLog = log.New(io.Discard, "", 0)
	upstream.StartTLS()
	t.Cleanup(upstream.Close)
	certFile = filepath.Join(t.TempDir(), "ca.pem")
	assert.NilError(t, os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: upstream.Certificate().Raw}), 0o600))
	return upstream.Listener.Addr().String(), certFile
}

// newForwardProxy returns an HTTP proxy, to be started, that leads every tunnel to addr, and what it will be asked for.
func newForwardProxy(t *testing.T, addr string) (forward *httptest.Server, asked chan string) {
	t.Helper()
	asked = make(chan string, 100)
	forward = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Method + " " + r.RequestURI
		upstream, err := net.Dial("tcp", addr)
		assert.Check(t, err)
		defer upstream.Close()
		conn, in, err := http.NewResponseController(w).Hijack()
		assert.Check(t, err)
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			io.Copy(upstream, in)
			upstream.Close()
		}()
		io.Copy(conn, upstream)
	}))
	t.Cleanup(forward.Close)
	return forward, asked
}

// Contract section 7: SSL_CERT_FILE works as in any Go program. Without it, an unknown certificate causes a 502 that says so.
func TestSSLCertFile(t *testing.T) {
	t.Parallel()
	addr, certFile := newTLSUpstream(t)
	p := startEnv(t, []string{"SSL_CERT_FILE=" + certFile}, "https://"+addr)
	resp, body := get(t, p.url("/v1"))
	assert.Equal(t, resp.StatusCode, http.StatusOK)
	assert.Equal(t, body, "upstream saw /v1")

	p = start(t, "https://"+addr)
	resp, body = get(t, p.url("/v1"))
	assert.Equal(t, resp.StatusCode, http.StatusBadGateway)
	assert.Check(t, strings.Contains(body, "certificate is not trusted"), body)
	assert.Check(t, strings.Contains(requestLine(p, "/v1")["error"].(string), "certificate is not trusted"))
}

// Contract section 7: HTTPS_PROXY is used for the upstream unless NO_PROXY names it.
func TestHTTPSProxy(t *testing.T) {
	t.Parallel()
	addr, certFile := newTLSUpstream(t)
	forward, asked := newForwardProxy(t, addr)
	forward.Start()
	env := []string{"SSL_CERT_FILE=" + certFile, "HTTPS_PROXY=" + forward.URL}
	p := startEnv(t, env, "https://"+nowhere)
	resp, body := get(t, p.url("/v1"))
	assert.Equal(t, resp.StatusCode, http.StatusOK, body)
	assert.Equal(t, body, "upstream saw /v1")
	assert.Equal(t, receive(t, asked, "a tunnel through the forward proxy"), "CONNECT "+nowhere+":443")

	p = startEnv(t, append(env, "NO_PROXY="+nowhere), "https://"+nowhere)
	resp, body = get(t, p.url("/v1"))
	assert.Equal(t, resp.StatusCode, http.StatusBadGateway)
	assert.Check(t, strings.Contains(body, "cannot resolve the upstream's name"), body)
	assert.Equal(t, len(asked), 0, "NO_PROXY has no effect")
}

// Contract section 7: HTTPS_PROXY may be an https:// URL. What the TLS handshake with that proxy offers is net/http's choice, not ours.
func TestHTTPSProxyOverTLS(t *testing.T) {
	t.Parallel()
	addr, certFile := newTLSUpstream(t)
	forward, asked := newForwardProxy(t, addr)
	offers := make(chan []string, 100)
	forward.TLS = &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		offers <- hello.SupportedProtos
		return nil, nil
	}}
	forward.StartTLS()
	p := startEnv(t, []string{"SSL_CERT_FILE=" + certFile, "HTTPS_PROXY=" + forward.URL}, "https://"+nowhere)
	resp, body := get(t, p.url("/v1"))
	assert.Equal(t, resp.StatusCode, http.StatusOK, body)
	assert.Equal(t, body, "upstream saw /v1")
	assert.Equal(t, receive(t, asked, "a tunnel through the forward proxy"), "CONNECT "+nowhere+":443")

	plain := http.DefaultTransport.(*http.Transport).Clone()
	defer plain.CloseIdleConnections()
	plain.Proxy = func(*http.Request) (*url.URL, error) { return url.Parse(forward.URL) }
	plain.TLSClientConfig = forward.Client().Transport.(*http.Transport).TLSClientConfig
	resp, err := (&http.Client{Transport: plain}).Get("https://" + nowhere)
	assert.NilError(t, err)
	resp.Body.Close()
	assert.DeepEqual(t, receive(t, offers, "our TLS handshake"), receive(t, offers, "net/http's TLS handshake"))
}

// Contract row 2.6 and section 7: a forward proxy that cannot be reached causes a 502 that names the variable, so that nobody
// looks for the fault at the API. It does not show the value, which may contain a password.
func TestHTTPSProxyIsDown(t *testing.T) {
	t.Parallel()
	for what, address := range map[string]string{
		"refuses connections": "127.0.0.1:1",
		"has no address":      nowhere + ":3128",
	} {
		t.Run(what, func(t *testing.T) {
			p := startEnv(t, []string{"HTTPS_PROXY=http://user:secret@" + address}, "https://api.example")
			resp, body := get(t, p.url("/v1"))
			assert.Equal(t, resp.StatusCode, http.StatusBadGateway)
			assert.Check(t, strings.Contains(body, "HTTPS_PROXY"), body)
			requestLine(p, "/v1")
			assert.Check(t, !strings.Contains(body+p.stderr.text(), "secret"), "%s%s", body, p.stderr.text())
		})
	}
}
