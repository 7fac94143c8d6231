package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// TestLogLine covers section 8: one line per finished request with these keys and no others.
func TestLogLine(t *testing.T) {
	t.Parallel()
	g := start(t, serveUpstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Request-Id", "req_theirs")
		w.WriteHeader(http.StatusTooManyRequests)
		io.WriteString(w, "slow down")
	}).URL)
	res := g.answer(t, "POST http://user:hush@elsewhere/v1//m%2F;x?hush HTTP/1.1\r\nHost: p\r\nContent-Length: 3\r\n\r\nabc")
	line := g.finished(t)
	assert.DeepEqual(t, slices.Sorted(maps.Keys(line)), []string{
		"attempts", "bytes_in", "bytes_out", "duration_ms", "headers_ms", "level", "method", "msg", "outcome", "path", "request_id", "status", "time", "upstream_request_id",
	})
	for key, want := range map[string]any{
		"attempts": 1.0, "bytes_in": 3.0, "bytes_out": 9.0, "level": "INFO", "method": "POST", "msg": "request", "outcome": "complete",
		"path": "/v1//m%2F;x", "request_id": res.Header.Get("X-Proxy-Request-Id"), "status": 429.0, "upstream_request_id": "req_theirs",
	} {
		assert.Equal(t, line[key], want, key)
	}
	assert.Assert(t, line["headers_ms"].(float64) <= line["duration_ms"].(float64))
	assert.Equal(t, strings.Count(g.log.String(), "\n"), 1, "more than one line for a request that went well")
}

// TestLoggedPath covers section 8: what a method or a target may hold that does not belong in a log.
func TestLoggedPath(t *testing.T) {
	t.Parallel()
	g := start(t, "http://127.0.0.1:1")
	for _, tt := range []struct{ name, target, want string }{
		{"userinfo behind two slashes", "//user:hush@host/v1", "//host/v1"},
		{"userinfo of a URL in the path", "/https://user:hush@host/v1", "/https://host/v1"},
		{"two at signs", "//user:hush@hush@host/v1", "//host/v1"},
		{"an at sign that is no userinfo", "/v1/models/a@b", "/v1/models/a@b"},
		{"fragment", "/v1#hush", "/v1"},
		{"C1 control character", "/v1\u009b31m", `/v1\u009b31m`},
		{"C1 control character as a byte", "/v1\x9b31m", `/v1\x9b31m`},
		{"line separator", "/v1\u2028", `/v1\u2028`},
		{"long path", "/" + strings.Repeat("x", 8<<10), "/" + strings.Repeat("x", 1<<10-1)},
		{"long path of control characters", "/" + strings.Repeat("\x9b", 8<<10), "/" + strings.Repeat(`\x9b`, 255) + `\x9`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g.answer(t, strings.Repeat("M", 40)+" "+tt.target+" HTTP/1.1\r\nHost: p\r\n\r\n")
			line := g.finished(t)
			assert.Equal(t, line["path"], tt.want)
			assert.Equal(t, line["method"], strings.Repeat("M", 32))
		})
	}
	assert.Assert(t, !strings.Contains(g.log.String(), "hush"), g.log.String())
}

// TestNothingSecret covers section 8 and its neighbours: a marker is put into every place that may hold a secret, in
// every way a request can end, and must not show in a log line, one of our error bodies, or a metric. Of section 4 it covers that each of
// these ways frees the request's slot: there is only one.
func TestNothingSecret(t *testing.T) {
	t.Parallel()
	const secret = "hushhushhush"
	headers := fmt.Sprintf("Authorization: Bearer %[1]s\r\nx-api-key: %[1]s\r\nCookie: s=%[1]s\r\nProxy-Authorization: Basic %[1]s\r\nX-Other: %[1]s\r\n"+
		"X-Proxy-Request-Id: %[1]s\r\nRequest-Id: %[1]s\r\nanthropic-beta: %[1]s\r\nReferer: http://%[1]s/\r\nHost: %[1]s\r\n", secret)
	text := `{"prompt": "` + secret + `"}`
	declared := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(text), text)
	requests := map[string]string{
		"origin-form":         "POST /v1?" + secret + "=1&" + secret + " HTTP/1.1\r\n" + headers + declared,
		"absolute-form":       "POST http://user:" + secret + "@elsewhere/v1?" + secret + " HTTP/1.1\r\n" + headers + declared,
		"fragment":            "POST /v1?a#" + secret + " HTTP/1.1\r\n" + headers + declared,
		"CONNECT":             "CONNECT user:" + secret + "@elsewhere:443 HTTP/1.1\r\n" + headers + "\r\n",
		"CONNECT no port":     "CONNECT " + secret + "@elsewhere HTTP/1.1\r\n" + headers + "\r\n",
		"opaque":              "GET http:user:" + secret + "@elsewhere/v1 HTTP/1.1\r\n" + headers + "\r\n",
		"opaque query":        "GET x:y?" + secret + " HTTP/1.1\r\n" + headers + "\r\n",
		"too large":           "POST /v1?" + secret + " HTTP/1.1\r\n" + headers + "Content-Length: 9999\r\n\r\n" + text,
		"malformed body":      chunkedHead[:len(chunkedHead)-len("Host: p\r\nTransfer-Encoding: chunked\r\n")] + headers + "Transfer-Encoding: chunked\r\n\r\n" + secret + "\r\n",
		"malformed trailer":   strings.Replace(chunkedHead, "Host: p\r\n", headers, 1) + "\r\n1\r\na\r\n0\r\n" + secret + "\r\n\r\n",
		"upgrade":             "GET /v1 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: " + secret + "\r\n" + headers + "\r\n",
		"upgrade, non-ASCII":  "GET /v1 HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: \xff" + secret + "\r\n" + headers + "\r\n",
		"not parsable":        "GET /" + secret + "% HTTP/1.1\r\n" + headers + "\r\n",
		"not parsable header": "GET / HTTP/1.1\r\n" + secret + "\r\n" + headers + "\r\n",
	}
	answers := map[string]string{
		"response":             "HTTP/1.1 400 " + secret + "\r\nSet-Cookie: " + secret + "\r\nX-Other: " + secret + "\r\nRetry-After: " + secret + "\r\nContent-Length: 12\r\n\r\n" + secret,
		"garbage":              secret + "\r\n\r\n",
		"status":               "HTTP/1.1 " + secret + "\r\n\r\n",
		"version":              secret + "/1.1 200 OK\r\n\r\n",
		"header line":          "HTTP/1.1 200 OK\r\n" + secret + "\r\n\r\n",
		"header name":          "HTTP/1.1 200 OK\r\n" + secret + " : x\r\n\r\n",
		"length":               "HTTP/1.1 200 OK\r\nContent-Length: " + secret + "\r\n\r\n",
		"transfer encoding":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + secret + "\r\n\r\n",
		"101":                  "HTTP/1.1 101 OK\r\nUpgrade: " + secret + "\r\n\r\n" + secret,
		"1xx":                  "HTTP/1.1 103 OK\r\n" + secret + "\r\n\r\n",
		"chunk":                sse + "1\r\na\r\n" + secret + "\r\n",
		"trailer":              sse + "1\r\na\r\n0\r\n" + secret + "\r\n\r\n",
		"rate limits":          "HTTP/1.1 200 OK\r\nanthropic-ratelimit-unified-5h-utilization: " + secret + "\r\nContent-Length: 0\r\n\r\n",
		"header and then FIN":  "HTTP/1.1 200 OK\r\nX-Other: " + secret,
		"silence":              "",
		"silence after a head": "HTTP/1.1 200 OK\r\nX-Other: " + secret + "\r\nContent-Length: 99\r\n\r\n" + secret,
	}
	for answerName, answer := range answers {
		t.Run(answerName, func(t *testing.T) {
			t.Parallel()
			upstreamURL := serveRaw(t, func(conn net.Conn, in *bufio.Reader, _ int) {
				for {
					if _, _, err := readMessage(in); err != nil {
						return
					}
					io.WriteString(conn, answer)
					if strings.HasPrefix(answerName, "silence") {
						io.Copy(io.Discard, in)
					}
					if !strings.Contains(answer, "Content-Length") {
						return
					}
				}
			})
			g := start(t, upstreamURL, timeout(100*time.Millisecond), retries(1), bodies(1000, 1000), slots(1))
			for name, request := range requests {
				c := g.dial(t)
				c.send(request)
				res := c.finalResponse("POST")
				data, _ := io.ReadAll(res.Body) // may be truncated
				ours := strings.Contains(string(data), `"proxy_error"`)
				assert.Assert(t, !ours || !strings.Contains(string(data), secret), "%s: our error tells: %s", name, data)
				c.Close()
				if !strings.HasPrefix(name, "not parsable") {
					g.finished(t)
				}
			}
			for line := range strings.Lines(g.log.String()) {
				assert.Assert(t, !strings.Contains(line, secret), "the log tells: %s", line)
			}
			assert.Assert(t, !strings.Contains(g.scraped(), secret), "a metric tells")
		})
	}
}
