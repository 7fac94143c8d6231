package faults

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

// Ten thousand clients cost memory that can be named, whether they are idle, within a head, or in the queue; and the stream beside them
// does not notice.
func TestClientsTenThousand(t *testing.T) {
	t.Parallel()
	many := 10_000
	if underRace() { // everything takes longer, but a head may still take 10 s only
		many = 1000
	}
	var limit syscall.Rlimit
	assert.NilError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit))
	if limit.Max < uint64(many)+1000 && os.Getenv("CI") != "true" {
		t.Skipf("no more than %d descriptors are allowed here", limit.Max)
	}
	w := protocols[0].open(t, "max_connections = 2") // one is for the stream beside
	crowd := make([]*conn, many)
	say := func(text string) {
		t.Helper()
		for _, c := range crowd {
			c.send(text)
		}
	}
	for i := range crowd {
		crowd[i] = w.dial()
	}
	say("GET /health HTTP/1.1\r\nHost: p\r\n\r\n")
	for _, c := range crowd {
		assert.Equal(t, c.rest().status, 200)
	}
	w.ended(w.post("/idle", "{}"), answered)

	say("POST /queued HTTP/1.1\r\nHost: p\r\n")
	w.ended(w.post("/within-the-head", "{}"), answered)

	done := make(chan struct{})
	w.up.follow("/holder", script{late: true, until: done})
	holder := w.post("/holder", "{}")
	w.reaches("proxy_requests_in_flight", 2)
	say("Content-Length: 2\r\n\r\n{}")
	w.reaches("proxy_requests_queued", float64(many))
	w.bounded(400)

	for _, conn := range crowd {
		conn.Close()
	}
	w.reaches("proxy_requests_queued", 0)
	w.expect(float64(many), `proxy_requests_total{method="POST",status="499"}`)
	close(done)
	assert.NilError(t, holder.rest().err) // of so many lines at once, the log may lose some
	w.served(1)
	w.undisturbed()
	assert.Equal(t, w.up.requests("/queued"), 0)
}

// A process that may open no further descriptor goes on with what it has, answers who is connected, and recovers.
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
	for range 500 { // the kernel accepts those that the process cannot
		crowd = append(crowd, w.dial())
	}
	w.p.Line(t, "about descriptors", func(l binary.Line) bool { return l["level"] == "WARN" && l["outcome"] == nil })
	ask := func(path string, want end) {
		t.Helper()
		connected.again("POST", path, "Content-Length: 2", "{}")
		w.ended(connected, want)
	}
	ask("/meanwhile", failed) // there is no descriptor for a connection to the upstream
	close(done)
	w.ended(stream, answered)
	assert.Equal(t, stream.body.String(), event+event)

	for _, conn := range crowd {
		conn.Close()
	}
	after := w.dial() // behind them all in the kernel's queue
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

// together calls f n times in each of some goroutines.
func together(goroutines, n int, f func()) {
	var group sync.WaitGroup
	for range goroutines {
		group.Go(func() {
			for range n {
				f()
			}
		})
	}
	group.Wait()
}
