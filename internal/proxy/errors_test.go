package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/internal/proxy"
)

// TestOurErrors covers section 3's shape for every kind of error that is ours, and rows 2.4 and 3.6 for their headers.
// assertOurError checks the shape. This test checks status, message and headers of each kind.
func TestOurErrors(t *testing.T) {
	t.Parallel()
	silent := serveRaw(t, func(_ net.Conn, in *bufio.Reader, _ int) { io.Copy(io.Discard, in) })
	broken := serveAnswer(t, "")
	for _, tt := range []struct {
		name, upstream, request string
		status                  int
		kind, level             string
	}{
		{"row 1.2 CONNECT", silent, "CONNECT a:1 HTTP/1.1\r\nHost: p\r\n\r\n", 405, "invalid_request", "INFO"},
		{"row 1.11 too large", silent, "POST / HTTP/1.1\r\nHost: p\r\nContent-Length: 9999\r\n\r\n", 413, "invalid_request", "INFO"},
		{"row 1.12 stalled", silent, "POST / HTTP/1.1\r\nHost: p\r\nContent-Length: 9\r\n\r\n", 408, "invalid_request", "INFO"},
		{"section 4 HTTP/2 without TLS", silent, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "invalid_request", "WARN"},
		{"row 2.4 timeout", silent, "GET / HTTP/1.1\r\nHost: p\r\n\r\n", 504, "timeout", "WARN"},
		{"row 2.6 connection", broken, "GET / HTTP/1.1\r\nHost: p\r\n\r\n", 502, "connection", "WARN"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			limit := patience
			if strings.HasSuffix(tt.name, "stalled") || strings.HasSuffix(tt.name, "timeout") {
				limit = 100 * time.Millisecond
			}
			g := start(t, tt.upstream, timeout(limit), bodies(100, 100))
			c := g.dial(t)
			c.send(strings.Replace(tt.request, "Host: p\r\n", "Host: p\r\nX-Proxy-Request-Id: req_forged\r\nRequest-Id: req_forged\r\n", 1))
			res := c.response("POST")
			message := assertOurError(t, res, tt.status)
			assert.Assert(t, message != "")
			assert.Equal(t, res.Header.Get("X-Should-Retry"), map[int]string{504: "false"}[tt.status])
			c.Close()
			line := g.finished(t)
			assert.Equal(t, line["request_id"], res.Header.Get("X-Proxy-Request-Id"))
			assert.Equal(t, line["level"], tt.level)
			assert.Equal(t, line["upstream_request_id"], "")
			for _, kind := range []string{"invalid_request", "timeout", "connection"} {
				counted := g.metric(t, fmt.Sprintf("proxy_upstream_errors_total{error_type=%q}", kind))
				assert.Equal(t, counted, map[string]float64{tt.kind: 1}[kind], kind)
			}
			assert.Equal(t, g.metrics.Errors.Load(), int64(1), "errors_total counts once per request")
			assert.Equal(t, g.metrics.Served.Load(), int64(1))
		})
	}
}

// TestDrained covers section 6 as far as this package goes: the drain's deadline aborts what runs, uploads included, and says so.
func TestDrained(t *testing.T) {
	t.Parallel()
	for _, stage := range []string{"upload", "no headers", "streaming"} {
		t.Run(stage, func(t *testing.T) {
			t.Parallel()
			handler, arrivals := blockingHandler()
			g := start(t, serveUpstream(t, handler).URL)
			c := g.dial(t)
			if stage == "upload" {
				c.post(10, "1")
				reaches(t, &g.metrics.HeldBytes, "proxy_held_body_bytes", 10)
				g.drain(proxy.ErrDraining)
				c.send("2") // the server ends a read that waits; the one after it is not begun
				c.closedWithoutAnswer()
				g.ended(t, 503, "drained", 0)
				return
			}
			c.post(1, "a")
			h := within(t, arrivals, "the request")
			if stage == "streaming" {
				h.send(t, "some")
				c.response("POST")
				c.event("some")
			}
			g.drain(proxy.ErrDraining)
			if stage == "streaming" {
				c.truncated()
				g.ended(t, 200, "drained", 1)
				assert.Equal(t, g.metric(t, `proxy_streams_total{outcome="drained"}`), 1.0)
			} else {
				c.closedWithoutAnswer()
				g.ended(t, 503, "drained", 1)
			}
			within(t, h.gone, "the upstream request's cancellation")
		})
	}
}
