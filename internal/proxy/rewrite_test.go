package proxy_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/internal/proxy"
)

// forwarded sends a GET with these header lines and returns the header lines that arrive at the upstream, sorted (the
// order of different names is free), with names in lower case, without Host.
func forwarded(t *testing.T, lines []string, changes ...func(*proxy.Options)) []string {
	t.Helper()
	upstreamURL, heads := echoHeads(t)
	g := start(t, upstreamURL, changes...)
	res := g.answer(t, "GET / HTTP/1.1\r\nHost: client.example\r\n"+strings.Join(append(lines, "\r\n"), "\r\n"))
	assert.Equal(t, res.StatusCode, http.StatusNoContent)
	return normal(within(t, heads, "the request at the upstream")[1:])
}

// normal sorts header lines by name, keeping the order of lines of the same name.
func normal(lines []string) []string {
	got := []string{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		if name = strings.ToLower(name); name != "host" && name != "date" {
			got = append(got, name+": "+value)
		}
	}
	name := func(line string) string { before, _, _ := strings.Cut(line, ":"); return before }
	slices.SortStableFunc(got, func(a, b string) int { return strings.Compare(name(a), name(b)) })
	return got
}

// TestRequestHeaders covers rows 1.4, 1.5, 1.6 and 1.9: what passes, what does not, and that nothing is invented.
func TestRequestHeaders(t *testing.T) {
	t.Parallel()
	const added = "anthropic-beta: oauth-2025-04-20"
	for _, tt := range []struct {
		name       string
		send, want []string
	}{
		{"row 1.5 nothing is invented", nil, []string{added}},
		{
			"row 1.5 unchanged, repeated, in order",
			[]string{"X-B: 2", "x-a: 1,  2 ,3", "X-B: 1", "X-b: 2", "Empty:", "Odd: \xe4\xff\t\"", "Cookie: a=b; c=d", "Cookie: e", "Accept-Encoding: br"},
			[]string{"accept-encoding: br", added, "cookie: a=b; c=d", "cookie: e", "empty: ", "odd: \xe4\xff\t\"", "x-a: 1,  2 ,3", "x-b: 2", "x-b: 1", "x-b: 2"},
		},
		{
			"row 1.5 unknown anthropic headers are an open list",
			[]string{
				"anthropic-version: 2023-06-01", "anthropic-tomorrow: x", "X-Stainless-Retry-Count: 0", "User-Agent: claude-cli/9",
				"X-Proxy-Request-Id: a",
			},
			[]string{
				added, "anthropic-tomorrow: x", "anthropic-version: 2023-06-01", "user-agent: claude-cli/9", "x-proxy-request-id: a",
				"x-stainless-retry-count: 0",
			},
		},
		{
			"row 1.5 the tailnet's names stay",
			[]string{
				"Forwarded: for=100.64.0.1", "X-Forwarded-For: 100.64.0.1", "x-forwarded-host: a", "X-FORWARDED-PROTO: https", "X-Forwarded-Anything: b",
				"X-Real-IP: 100.64.0.1", "Tailscale-User-Login: someone", "tailscale-user-name: Some One", "Tailscale-Anything: c", "X-Tailscale: stays",
			},
			[]string{added, "x-tailscale: stays"},
		},
		{
			"row 1.5 what a hop in front says of its client",
			[]string{
				"Via: 1.1 gateway", "CDN-Loop: cloudflare", "CF-Connecting-IP: 100.64.0.1", "Cf-Ray: 1", "cf-anything: 2", "True-Client-IP: a", "X-Client-IP: a",
				"X-Cluster-Client-IP: a", "X-Original-Forwarded-For: a", "Fastly-Client-IP: a", "Fly-Client-IP: a", "fly-region: fra", "X-Envoy-Peer-Metadata: a",
				"x-envoy-external-address: a", "CFX: stays", "Viable: stays",
			},
			[]string{added, "cfx: stays", "viable: stays"},
		},
		{
			"row 1.4 hop-by-hop",
			[]string{
				"Connection: keep-alive, X-Hop", "Connection: x-hop2", "Keep-Alive: timeout=5", "Proxy-Authenticate: Basic", "Proxy-Authorization: Basic eA==",
				"Proxy-Connection: keep-alive", "TE: trailers", "Trailer: X-T", "X-Hop: 1", "X-HOP2: 2", "X-Stays: 3",
			},
			[]string{added, "x-stays: 3"},
		},
		{
			"row 1.4 no upgrade is asked for",
			[]string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c, websocket", "HTTP2-Settings: AAA"},
			[]string{added},
		},
		{
			"row 1.4 credentials pass even when named in Connection",
			[]string{"Connection: Authorization, x-api-key, cookie", "authorization: Bearer one", "Authorization: Bearer two", "X-API-KEY: three", "Cookie: gone"},
			[]string{added, "authorization: Bearer one", "authorization: Bearer two", "x-api-key: three"},
		},
		{
			"row 1.9 a client cannot strip the rule's header by naming it in Connection",
			[]string{"Connection: anthropic-beta", "anthropic-beta: a"},
			[]string{added},
		},
		{
			"row 1.9 the client's flags stay",
			[]string{"anthropic-beta: claude-code-20250219,context-management-2025-06-27"},
			[]string{"anthropic-beta: claude-code-20250219,context-management-2025-06-27,oauth-2025-04-20"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			assert.DeepEqual(t, forwarded(t, tt.send), tt.want)
		})
	}
}

// TestRules covers rows 1.7 and 1.8 with one rule; rows of several lines are several header lines.
func TestRules(t *testing.T) {
	t.Parallel()
	set := proxy.Rule{Name: "X-Rule", Value: "ours, too"}
	add := proxy.Rule{Name: "x-RULE", Value: "one, two,one", Add: true}
	for _, tt := range []struct {
		name       string
		rule       proxy.Rule
		send, want []string
	}{
		{"row 1.7 set adds", set, nil, []string{"ours, too"}},
		{"row 1.7 set replaces", set, []string{"theirs"}, []string{"ours, too"}},
		{"row 1.7 set replaces every line", set, []string{"a", "b"}, []string{"ours, too"}},
		{"row 1.8 add supplies the header", add, nil, []string{"one,two"}},
		{"row 1.8 add appends what is missing", add, []string{"a, two"}, []string{"a, two,one"}},
		{"row 1.8 tokens are exact", add, []string{"One,one1,two "}, []string{"One,one1,two,one"}},
		{"row 1.8 add looks at every line", add, []string{"a,one", "two,b"}, []string{"a,one", "two,b"}},
		{"row 1.8 nothing missing, byte for byte", add, []string{" two ,,one,\tone , two", "a;q=1"}, []string{"two ,,one,\tone , two", "a;q=1"}},
		{"row 1.8 order and spelling stay", add, []string{"z,  A", "two", "b,"}, []string{"z,  A", "two", "b,one"}},
		{"row 1.8 an empty line", add, []string{""}, []string{"one,two"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var lines, want []string
			for _, value := range tt.send {
				lines = append(lines, "x-rule: "+value)
			}
			for _, value := range tt.want {
				want = append(want, "x-rule: "+value)
			}
			assert.DeepEqual(t, forwarded(t, lines, rules(tt.rule)), want)
		})
	}
}

// TestRequestOverHTTP2 covers rows 1.1, 1.3 to 1.5 and 1.8 towards an upstream that speaks HTTP/2, where the target is the :path field.
func TestRequestOverHTTP2(t *testing.T) {
	t.Parallel()
	heads := make(chan *http.Request, 1)
	upstream := serveHTTP2(t, func(_ http.ResponseWriter, r *http.Request) { heads <- r })
	g := start(t, upstream.URL)
	for _, target := range []string{"//v1//messages", "/%2F;x/../{y}?a=%zz&b;c", "//v1/{x}", "/x?", "/?{"} {
		res := g.answer(t, "GET "+target+" HTTP/1.1\r\nHost: client.example\r\nConnection: x-hop, x-api-key\r\nX-Hop: 1\r\nTE: trailers\r\n"+
			"x-api-key: k\r\nX-A: 1\r\nX-A: 2\r\nX-Forwarded-For: 1\r\nanthropic-beta: a\r\nIdempotency-Key: i\r\n\r\n")
		assert.Equal(t, res.StatusCode, http.StatusOK, target)
		r := within(t, heads, "the request at the upstream")
		assert.Equal(t, r.Proto+" "+r.Host+" "+r.RequestURI, "HTTP/2.0 "+strings.TrimPrefix(upstream.URL, "https://")+" "+target)
		assert.DeepEqual(t, r.Header, http.Header{
			"X-Api-Key": {"k"}, "X-A": {"1", "2"}, "Anthropic-Beta": {"a,oauth-2025-04-20"}, "Idempotency-Key": {"i"},
		})
	}
}

// TestResponsePassesUnchanged covers rows 2.7, 1.4 and 3.6: any status, every end-to-end header, the body's bytes; no
// redirect is followed, nothing is retried or wrapped.
func TestResponsePassesUnchanged(t *testing.T) {
	t.Parallel()
	for _, status := range []string{"200 OK", "201 Created", "299 Odd", "301 Moved Permanently", "307 Temporary Redirect", "400 Bad Request", "401 Unauthorized",
		"403 Forbidden", "404 Not Found", "407 Proxy Authentication Required", "408 Request Timeout", "413 Too Large", "421 Misdirected Request", "425 Too Early", "429 Too Many Requests",
		"500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "529 Overloaded", "599 Odd"} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			const text = `{"type":"error","error":{"type":"overloaded_error","message":"theirs"}}`
			arrived := make(chan int, 10)
			upstreamURL := serveRaw(t, func(conn net.Conn, in *bufio.Reader, nth int) {
				for {
					if _, _, err := readMessage(in); err != nil {
						return
					}
					arrived <- nth
					fmt.Fprintf(conn, "HTTP/1.1 %s\r\nContent-Length: %d\r\nContent-Type: application/json\r\nLocation: http://127.0.0.1:1/\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"+
						"request-id: req_theirs\r\nretry-after: 7\r\nretry-after-ms: 7000\r\nx-should-retry: true\r\nanthropic-ratelimit-unified-5h-utilization: 0.5\r\n"+
						"X-Proxy-Request-Id: req_forged\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nVia: 1.1 edge\r\nServer: theirs\r\n"+
						"Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=9\r\nProxy-Authenticate: Basic\r\nX-Hop: gone\r\nOdd: \xe4\r\n\r\n%s", status, len(text), text)
				}
			})
			g := start(t, upstreamURL)
			c := g.dial(t)
			c.post(2, "{}")
			head, got, err := readMessage(c.in)
			assert.NilError(t, err)
			assert.Equal(t, got, text)
			assert.Equal(t, head[0][:12], "HTTP/1.1 "+status[:3])
			ours := fields(head, "X-Proxy-Request-Id")
			assert.Equal(t, len(ours), 1)
			assert.Assert(t, isID(ours[0]), ours[0])
			assert.DeepEqual(t, normal(head[1:]), []string{
				"anthropic-ratelimit-unified-5h-utilization: 0.5", fmt.Sprintf("content-length: %d", len(text)), "content-type: application/json",
				"location: http://127.0.0.1:1/", "odd: \xe4", "request-id: req_theirs", "retry-after: 7", "retry-after-ms: 7000", "server: theirs",
				"set-cookie: a=1", "set-cookie: b=2", "via: 1.1 edge", "x-proxy-request-id: " + ours[0], "x-should-retry: true",
			})
			assert.DeepEqual(t, fields(head, "Date"), []string{"Thu, 01 Jan 1970 00:00:00 GMT"})
			assert.Equal(t, len(arrived), 1, "the request was sent more than once")
			line := g.finished(t)
			assert.Equal(t, line["attempts"], 1.0)
			assert.Equal(t, line["upstream_request_id"], "req_theirs")
			assert.Equal(t, g.metrics.Errors.Load(), int64(0), "errors_total counts our own errors alone (contract section 5)")
		})
	}
}

// TestNoContentTypeIsInvented covers row 2.7: net/http would guess one from the body's first bytes.
func TestNoContentTypeIsInvented(t *testing.T) {
	t.Parallel()
	g := start(t, serveAnswer(t, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"))
	for range 100 { // it guesses only if the header leaves together with the body
		res := g.get(t, "/")
		assert.Equal(t, body(t, res), "<html>")
		_, invented := res.Header["Content-Type"]
		assert.Assert(t, !invented, "Content-Type: %s was not the upstream's", res.Header.Get("Content-Type"))
	}
}

// TestCompressedBodies covers row 1.14: neither direction is decoded, whatever it claims to be.
func TestCompressedBodies(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	io.WriteString(w, "some text that is compressed")
	w.Close()
	bothUpstreams(t, func(w http.ResponseWriter, r *http.Request) {
		assert.Check(t, r.Header.Get("Content-Encoding") == "gzip" && r.Header.Get("Accept-Encoding") == "", "the upstream sees %v", r.Header)
		w.Header().Set("Content-Encoding", "gzip")
		io.Copy(w, r.Body)
	}, func(t *testing.T, upstreamURL string) {
		g := start(t, upstreamURL)
		req, err := http.NewRequest("POST", g.url, bytes.NewReader(packed.Bytes()))
		assert.NilError(t, err)
		req.Header.Set("Content-Encoding", "gzip")
		res, err := g.client.Do(req)
		assert.NilError(t, err)
		assert.Equal(t, res.Header.Get("Content-Encoding"), "gzip")
		assert.Equal(t, body(t, res), packed.String())
	})
}
