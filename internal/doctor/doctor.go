// Package doctor finds out why the upstream cannot be reached. It sends one request without credentials, over the same
// transport as the proxy, and expects the API's own refusal: 401 with an authentication_error. That costs nothing and
// needs no token. It names the step that failed (DNS, the connection, HTTPS_PROXY, TLS, a filter that answers instead of the
// API) and says where to look.
package doctor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/target"
	"github.com/basher83/anthropic-oauth-proxy/internal/upstream"
)

const (
	path    = "/v1/messages"
	timeout = 20 * time.Second // for the response headers; the API's refusal takes milliseconds
	maxBody = 64 << 10
)

// Run tests each step on the way to the upstream, prints the results to out, and reports whether all is well.
func Run(ctx context.Context, up *url.URL, out io.Writer) bool {
	e := &examination{out: out, upstream: up, handshake: "tls"}
	e.say("upstream", "%s", up)
	url, err := target.Join(up, path, &url.URL{Path: path})
	if err != nil {
		return e.fail("upstream", err.Error(), "upstream_url must be a URL such as https://api.anthropic.com")
	}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, e.trace()), http.MethodPost, url.String(), strings.NewReader("{}"))
	if err != nil {
		return e.fail("upstream", err.Error(), "upstream_url must be a URL such as https://api.anthropic.com")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Anthropic-Version", "2023-06-01")
	e.proxy(req)
	resp, err := upstream.New(upstream.Options{HeaderTimeout: timeout, IdleTimeout: timeout}).RoundTrip(req)
	if err != nil {
		return e.failed(err)
	}
	defer resp.Body.Close()
	return e.judge(resp)
}

// examination prints a line for each step and records how far the request got.
type examination struct {
	out       io.Writer
	upstream  *url.URL
	proxied   bool
	handshake string // the step of the next TLS handshake: tls, or proxy if HTTPS_PROXY is https://

	mu     sync.Mutex // net/http tries two addresses at once
	step   string     // the current step: dns, connect, proxy (its TLS), tls, request
	detail error      // why the current step failed
}

func (e *examination) say(step, format string, args ...any) {
	fmt.Fprintf(e.out, "%-9s %s\n", step, fmt.Sprintf(format, args...))
}

func (e *examination) fail(step, what, hint string) bool {
	fmt.Fprintf(e.out, "%-9s FAILED: %s\n%-9s %s\n", step, what, "hint", hint)
	return false
}

func (e *examination) proxy(req *http.Request) {
	via, err := http.ProxyFromEnvironment(req)
	switch {
	case err != nil:
		e.say("proxy", "HTTPS_PROXY or HTTP_PROXY is not a URL")
	case via != nil:
		e.proxied = true
		if via.Scheme == "https" {
			e.handshake = "proxy"
		}
		e.say("proxy", "%s, from HTTPS_PROXY or HTTP_PROXY", via.Host)
	default:
		e.say("proxy", "none")
	}
}

// trace prints each step of the connection when it is done.
func (e *examination) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { e.begin("dns") },
		DNSDone: func(info httptrace.DNSDoneInfo) {
			var addrs []string
			for _, a := range info.Addrs {
				addrs = append(addrs, a.String())
			}
			e.done("dns", info.Err, strings.Join(addrs, ", "))
		},
		ConnectStart:      func(string, string) { e.begin("connect") },
		ConnectDone:       func(_, addr string, err error) { e.done("connect", err, addr) },
		TLSHandshakeStart: func() { e.begin(e.handshake) },
		TLSHandshakeDone: func(state tls.ConnectionState, err error) {
			var what string
			if err == nil {
				cert := state.PeerCertificates[0]
				what = fmt.Sprintf("%s, %s, certificate of %q by %q, valid until %s", tls.VersionName(state.Version), protocol(state),
					cert.Subject.CommonName, cert.Issuer.String(), cert.NotAfter.Format(time.DateOnly))
			}
			e.done(e.handshake, err, what)
			if err == nil {
				e.handshake = "tls" // the upstream's, through the proxy
			}
		},
		GotConn: func(httptrace.GotConnInfo) { e.begin("request") },
	}
}

func (e *examination) begin(step string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.step, e.detail = step, nil
}

func (e *examination) done(step string, err error, what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		e.say(step, "%s", what)
	} else if step == e.step { // else another address has connected
		e.detail = err
	}
}

func protocol(state tls.ConnectionState) string {
	if state.NegotiatedProtocol == "h2" {
		return "HTTP/2"
	}
	return "HTTP/1.1"
}

// failed explains an error of the transport.
func (e *examination) failed(err error) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	what := err.Error()
	var failure *upstream.Error
	if errors.As(err, &failure) {
		what = failure.Reason
		if e.detail == nil && e.step == e.handshake {
			e.detail = failure.Err
		}
	}
	if e.detail != nil {
		what += " (" + e.detail.Error() + ")"
	}
	step := e.step
	if e.proxied && step != "tls" && step != "request" {
		step = "proxy"
	} else if step == "" {
		step = "connect"
	}
	return e.fail(step, what, e.hint(step))
}

// judge decides whether the API answered.
func (e *examination) judge(resp *http.Response) bool {
	var refusal struct {
		Error struct {
			Type string `json:"type"`
		} `json:"error"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return e.fail("request", "the answer broke off", e.hint("request"))
	}
	kind := ""
	if json.Unmarshal(body, &refusal) == nil {
		kind = refusal.Error.Type
	}
	if resp.StatusCode == http.StatusUnauthorized && kind == "authentication_error" {
		e.say("request", "POST %s without credentials: 401 authentication_error, as expected (request-id %s)", path, resp.Header.Get("Request-Id"))
		e.say("ok", "the upstream is reachable and answers as the API does")
		return true
	}
	what := fmt.Sprintf("answered %d with %q instead of the API's 401", resp.StatusCode, resp.Header.Get("Content-Type"))
	if kind != "" {
		what = fmt.Sprintf("answered %d %q instead of 401 \"authentication_error\"", resp.StatusCode, kind)
	}
	return e.fail("request", what, e.answerHint(resp, kind))
}
