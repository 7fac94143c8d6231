// Package doctor finds out why the upstream cannot be reached. It sends one request without credentials, over the same
// transport as the proxy, and expects the API's own refusal: 401 with an authentication_error. That costs nothing and
// needs no token, and whatever breaks on the way (DNS, egress policy, HTTPS_PROXY, TLS, a filter that answers in the
// API's place) is named together with where to look.
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
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/target"
	"github.com/basher83/anthropic-oauth-proxy/internal/upstream"
)

const (
	path    = "/v1/messages"
	timeout = 20 * time.Second // for the answer's headers; a refusal takes milliseconds
	maxBody = 64 << 10
)

// Run examines the way to the upstream, prints what it sees to out, and reports whether all is well.
func Run(ctx context.Context, up *url.URL, out io.Writer) bool {
	e := &examination{out: out}
	e.say("upstream", "%s", up)
	url, err := target.Join(up, path, &url.URL{Path: path})
	if err != nil {
		return e.fail("upstream", err.Error(), "upstream_url must be a URL such as https://api.anthropic.com")
	}
	body := strings.NewReader("{}")
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, e.trace()), http.MethodPost, url.String(), body)
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

// examination prints its findings, a line each, and remembers how far the request has come.
type examination struct {
	out     io.Writer
	step    string // the step under way: dns, connect, tls, request
	proxied bool
	detail  error // what the step under way said when it failed
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
		e.say("proxy", "%s, from HTTPS_PROXY or HTTP_PROXY", via.Host)
	default:
		e.say("proxy", "none")
	}
}

// trace prints each step of the connection as net/http takes it.
func (e *examination) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { e.step = "dns" },
		DNSDone: func(info httptrace.DNSDoneInfo) {
			if e.detail = info.Err; info.Err == nil {
				var addrs []string
				for _, a := range info.Addrs {
					addrs = append(addrs, a.String())
				}
				e.say("dns", "%s", strings.Join(addrs, ", "))
			}
		},
		ConnectStart: func(string, string) { e.step = "connect" },
		ConnectDone: func(_, addr string, err error) {
			if e.detail = err; err == nil {
				e.say("connect", "%s", addr)
			}
		},
		TLSHandshakeStart: func() { e.step = "tls" },
		TLSHandshakeDone: func(state tls.ConnectionState, err error) {
			if e.detail = err; err == nil {
				cert := state.PeerCertificates[0]
				e.say("tls", "%s, %s, certificate of %q by %q, valid until %s", tls.VersionName(state.Version), protocol(state),
					cert.Subject.CommonName, cert.Issuer.String(), cert.NotAfter.Format(time.DateOnly))
			}
		},
		GotConn: func(httptrace.GotConnInfo) { e.step = "request" },
	}
}

func protocol(state tls.ConnectionState) string {
	if state.NegotiatedProtocol == "h2" {
		return "HTTP/2"
	}
	return "HTTP/1.1"
}

// hints say where to look, by the step that failed.
var hints = map[string]string{
	"dns":     "does the pod's DNS work, and does the NetworkPolicy allow UDP and TCP port 53 to it? Is upstream_url spelt right?",
	"connect": "does the NetworkPolicy, or a firewall, allow TCP port 443 to public addresses? If a proxy is needed, is HTTPS_PROXY set?",
	"tls":     "something on the way may intercept TLS; SSL_CERT_FILE can name its CA. Is the clock right? Is it https:// on an https port?",
	"request": "the connection stood and then broke; look at what lies between here and the upstream, and at the API's status page",
	"proxy":   "HTTPS_PROXY names a proxy that cannot be reached or refuses the upstream; NO_PROXY exempts names from it",
}

// failed explains an error of the transport.
func (e *examination) failed(err error) bool {
	step := e.step
	if e.proxied && step != "tls" && step != "request" {
		step = "proxy"
	}
	if step == "" {
		step = "connect"
	}
	what := err.Error()
	var failure *upstream.Error
	if errors.As(err, &failure) {
		what = failure.Reason
	}
	if e.detail != nil {
		what += " (" + e.detail.Error() + ")"
	}
	return e.fail(step, what, hints[step])
}

// judge looks at who has answered.
func (e *examination) judge(resp *http.Response) bool {
	var refusal struct {
		Error struct {
			Type string `json:"type"`
		} `json:"error"`
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return e.fail("request", "the answer broke off", hints["request"])
	}
	isAPI := json.Unmarshal(body, &refusal) == nil && refusal.Error.Type != ""
	switch {
	case isAPI && resp.StatusCode == http.StatusUnauthorized && refusal.Error.Type == "authentication_error":
		e.say("request", "POST %s without credentials: 401 authentication_error, as it should be (request-id %s)", path, resp.Header.Get("Request-Id"))
		e.say("ok", "the upstream is reachable and answers as the API does")
		return true
	case isAPI && resp.StatusCode >= 500 || isAPI && resp.StatusCode == http.StatusTooManyRequests:
		return e.fail("request", fmt.Sprintf("the API answered %d %q", resp.StatusCode, refusal.Error.Type), "the way is clear, the API has trouble; see its status page and try again")
	}
	return e.fail("request", fmt.Sprintf("answered %d with %q instead of the API's 401", resp.StatusCode, resp.Header.Get("Content-Type")),
		"something else answered in the API's place: a filter, a captive portal, or upstream_url points elsewhere")
}
