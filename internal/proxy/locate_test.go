package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"gotest.tools/v3/assert"
)

// noContent is an upstream's shortest answer.
const noContent = "HTTP/1.1 204 No Content\r\n\r\n"

// echoHeads runs a raw upstream that answers every request with 204 and passes on the request's head.
func echoHeads(t *testing.T) (upstreamURL string, heads <-chan []string) {
	ch := make(chan []string, 100)
	upstreamURL = serveRaw(t, func(conn net.Conn, in *bufio.Reader, _ int) {
		for {
			head, _, err := readMessage(in)
			if err != nil {
				return
			}
			ch <- head
			io.WriteString(conn, noContent)
		}
	})
	return upstreamURL, ch
}

// TestTarget covers rows 1.1, 1.2 and 1.3: the target arrives byte for byte at the configured upstream, under its host.
func TestTarget(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ prefix, method, target, want string }{
		{"", "GET", "/", "/"},
		{"", "POST", "/v1/messages?beta=true", "/v1/messages?beta=true"},
		{"", "GET", "//v1//messages", "//v1//messages"},
		{"", "GET", "//elsewhere.example/x", "//elsewhere.example/x"},
		// The one that net/http cannot send in origin-form; RFC 9112 section 3.2.2 has servers accept this one too.
		{"", "GET", "//v1/{x}", "http://UPSTREAM//v1/{x}"},
		{"", "GET", "/v1%2Fmessages%2f", "/v1%2Fmessages%2f"},
		{"", "GET", "/a;b=c/d;e?f;g=h&i;j", "/a;b=c/d;e?f;g=h&i;j"},
		{"", "GET", "/a/../b/./c/..", "/a/../b/./c/.."},
		{"", "GET", "/%2e%2E/x", "/%2e%2E/x"},
		{"", "GET", "/{x}|^`\"<>[]\\", "/{x}|^`\"<>[]\\"},
		{"", "GET", "/a#b?c#d", "/a#b?c#d"},
		{"", "GET", "/\xc3\xa4\xff", "/\xc3\xa4\xff"},
		{"", "GET", "/a%00b", "/a%00b"},
		{"", "GET", "/x?", "/x?"},
		{"", "GET", "/x?a=%zz&b=%&c", "/x?a=%zz&b=%&c"},
		{"", "GET", "/x?a=http://b/?c", "/x?a=http://b/?c"},
		{"", "OPTIONS", "*", "*"},
		{"", "GET", "http://elsewhere.example/x?y", "/x?y"},
		{"", "GET", "http://elsewhere.example//x/../%2F;y?", "//x/../%2F;y?"},
		{"", "GET", "http://elsewhere.example", "/"},
		{"", "GET", "http://elsewhere.example?x", "/?x"},
		{"", "GET", "HTTPS://user:word@elsewhere.example:1/x", "/x"},
		{"/", "GET", "/v1", "/v1"},
		{"/prefix", "GET", "/v1", "/prefix/v1"},
		{"/prefix/", "GET", "/v1", "/prefix/v1"},
		{"/prefix//", "GET", "/v1", "/prefix//v1"},
		{"/prefix/", "GET", "//v1", "/prefix//v1"},
		{"/pre%2Ffix", "GET", "/{x}/../%2f", "/pre%2Ffix/{x}/../%2f"},
		{"/prefix", "GET", "http://elsewhere.example", "/prefix"},
		{"/prefix", "OPTIONS", "*", "*"},
		{"", "DELETE", "/x", "/x"},
		{"", "PROPFIND", "/x", "/x"},
		{"", "m-search", "/x", "/x"},
	} {
		upstreamURL, heads := echoHeads(t)
		res := start(t, upstreamURL+tt.prefix).answer(t, tt.method+" "+tt.target+" HTTP/1.1\r\nHost: client.example\r\n\r\n")
		assert.Equal(t, res.StatusCode, http.StatusNoContent, tt.target)
		head := within(t, heads, "the request at the upstream")
		want := strings.Replace(tt.want, "http://UPSTREAM", upstreamURL, 1)
		assert.Equal(t, head[0], tt.method+" "+want+" HTTP/1.1")
		assert.DeepEqual(t, fields(head, "Host"), []string{strings.TrimPrefix(upstreamURL, "http://")})
	}
}

// TestTargetRefused covers rows 1.1 and 1.2: what has no place at the upstream is refused and never gets there.
func TestTargetRefused(t *testing.T) {
	t.Parallel()
	var reached atomic.Int64
	upstream := serveUpstream(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	g := start(t, upstream.URL)
	for line, status := range map[string]int{
		"CONNECT elsewhere.example:443":           405,
		"CONNECT user:hush@elsewhere.example:443": 405,
		"CONNECT /path":                           405,
		"GET mailto:someone":                      400,
		"GET http:user:hush@elsewhere.example/x":  400,
	} {
		res := g.answer(t, line+" HTTP/1.1\r\nHost: client.example\r\n\r\n")
		message := assertOurError(t, res, status)
		assert.Assert(t, !strings.Contains(message, "elsewhere"), "the message quotes the target: %s", message)
		assert.Equal(t, res.Header.Get("Allow") != "", status == 405, "a 405 must name the allowed methods (RFC 9110 section 15.5.6)")
		g.ended(t, float64(status), "complete", 0)
	}
	for _, target := range []string{"/100%", "/%zz", "/a b", "elsewhere", "//%", ""} { // net/http cannot parse them
		res := g.answer(t, "GET "+target+" HTTP/1.1\r\nHost: client.example\r\n\r\n")
		assert.Equal(t, res.StatusCode, http.StatusBadRequest, target)
	}
	assert.Equal(t, reached.Load(), int64(0), "a refused request reached the upstream")
}

// TestHeaderLines covers section 4: 128 header lines pass, more get 431, with a log line and in the metrics.
func TestHeaderLines(t *testing.T) {
	t.Parallel()
	g := start(t, serveUpstream(t, func(http.ResponseWriter, *http.Request) {}).URL)
	for _, line := range []string{"X-%d: 1\r\n", "X: %d\r\n"} { // of different names, and of one
		for lines, status := range map[int]int{128: http.StatusOK, 129: http.StatusRequestHeaderFieldsTooLarge} {
			head := "GET / HTTP/1.1\r\nHost: p\r\n"
			for i := range lines {
				head += fmt.Sprintf(line, i)
			}
			assert.Equal(t, g.answer(t, head+"\r\n").StatusCode, status, "%d lines %q", lines, line)
			assert.Equal(t, g.finished(t)["status"], float64(status))
		}
	}
	assert.Equal(t, g.metric(t, `proxy_requests_total{method="GET",status="431"}`), 2.0)
}
