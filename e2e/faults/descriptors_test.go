package faults

import (
	"fmt"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

// A process without free descriptors keeps its running requests, answers connected clients, and recovers.
func TestClientsTakeAllDescriptors(t *testing.T) {
	t.Parallel()
	up := newH1Upstream(t)
	limited := up.upstream()
	limited.under = []string{"sh", "-c", `ulimit -n 60 && exec "$@"`, "sh"}
	w := newWorld(t, limited)
	done := make(chan struct{})
	up.follow("/streaming", script{until: done})
	stream := w.open("/streaming")
	connected := w.dial()
	connected.send("GET /health HTTP/1.1\r\nHost: p\r\n\r\n")
	assert.Equal(t, connected.rest().status, 200)

	var crowd []*conn
	for range 500 { // the kernel completes connections that the process cannot accept
		crowd = append(crowd, w.dial())
	}
	w.p.Line(t, "about descriptors", func(l binary.Line) bool { return l["level"] == "WARN" && l["outcome"] == nil })
	ask := func(path string, want end) {
		t.Helper()
		connected.again("POST", path, "Content-Length: 2", "{}")
		w.ended(connected, want)
	}
	ask("/meanwhile", failed) // no descriptor is left for a connection to the upstream
	close(done)
	w.ended(stream, answered)
	assert.Equal(t, stream.body.String(), event+event)

	for _, conn := range crowd {
		conn.Close()
	}
	after := w.dial() // last in the kernel's queue
	after.send("GET /health HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n")
	assert.Equal(t, after.rest().status, 200)
	w.until(func(m binary.Metrics) string {
		if n := m["process_open_fds"]; n == 0 || n > 30 {
			return fmt.Sprintf("%v descriptors", n)
		}
		return ""
	})
	ask("/recovered", answered)
	w.ended(w.post("/after", "{}"), answered)
}
