package faults

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
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
	if limit.Max < uint64(many)+1000 {
		t.Skipf("no more than %d descriptors are allowed here", limit.Max)
	}
	w := protocols[0].open(t, "max_connections = 2") // one is for the stream beside
	crowd := make([]net.Conn, many)
	defer func() {
		for _, conn := range crowd {
			if conn != nil {
				conn.Close()
			}
		}
	}()
	say := func(i int, text string) {
		t.Helper()
		crowd[i].SetDeadline(time.Now().Add(patience))
		_, err := crowd[i].Write([]byte(text))
		assert.NilError(t, err, "connection %d", i)
	}
	report := func(moment string) {
		t.Helper()
		m := w.scrape(t)
		t.Logf("%s: %v descriptors, %v goroutines, %.0f MiB", moment,
			m["process_open_fds"], m["go_goroutines"], m["process_resident_memory_bytes"]/(1<<20))
		assert.Assert(t, m["process_open_fds"] >= float64(many), "the clients are not there any more")
	}

	for i := range crowd {
		conn, err := net.DialTimeout("tcp", w.p.addr, patience)
		assert.NilError(t, err, "connection %d", i)
		crowd[i] = conn
		say(i, "GET /health HTTP/1.1\r\nHost: p\r\n\r\n")
	}
	in := bufio.NewReader(nil)
	for i, conn := range crowd {
		in.Reset(conn)
		res, err := http.ReadResponse(in, nil)
		assert.NilError(t, err, "connection %d", i)
		assert.Equal(t, res.StatusCode, 200)
	}
	report("idle")
	w.ended(w.post("/idle", "{}"), answered)

	for i := range crowd {
		say(i, "POST /queued HTTP/1.1\r\nHost: p\r\n")
	}
	report("within the head")
	w.ended(w.post("/within-the-head", "{}"), answered)

	done := make(chan struct{})
	w.up.follow("/holder", script{late: true, until: done})
	holder := w.post("/holder", "{}")
	w.reaches("proxy_requests_in_flight", 2)
	for i := range crowd {
		say(i, "Content-Length: 2\r\n\r\n{}")
	}
	w.reaches("proxy_requests_queued", float64(many))
	report("in the queue")
	w.bounded(400)

	for _, conn := range crowd {
		conn.Close()
	}
	w.reaches("proxy_requests_queued", 0)
	w.expected[`proxy_requests_total{method="POST",status="499"}`] += float64(many)
	close(done)
	w.ended(holder, answered)
	w.undisturbed()
	assert.Equal(t, w.up.requests("/queued"), 0)
}

// A process that may open no further descriptor goes on with what it has, answers who is connected, and recovers.
func TestClientsTakeAllDescriptors(t *testing.T) {
	t.Parallel()
	up := newH1Upstream(t)
	w := newWorldUnder(t, []string{"sh", "-c", `ulimit -n 60 && exec "$@"`, "sh"}, up)
	done := make(chan struct{})
	up.follow("/streaming", script{until: done})
	stream := w.open("/streaming")
	connected := w.dial()
	connected.send("GET /health HTTP/1.1\r\nHost: p\r\n\r\n")
	assert.Equal(t, connected.rest().status, 200)

	var crowd []net.Conn
	for i := range 500 { // the kernel accepts those that the process cannot
		conn, err := net.DialTimeout("tcp", w.p.addr, patience)
		assert.NilError(t, err, "connection %d", i)
		defer conn.Close()
		crowd = append(crowd, conn)
	}
	w.p.log.wait(t, "about descriptors", nil, func(l line) bool { return l["level"] == "WARN" && l["outcome"] == nil })
	ask := func(path string, want end) {
		t.Helper()
		connected.method, connected.path, connected.res = "POST", path, nil
		connected.body.Reset()
		connected.send(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: p\r\nContent-Length: 2\r\n\r\n{}", path))
		w.ended(connected, want)
	}
	ask("/meanwhile", failed) // there is no descriptor for a connection to the upstream
	assert.Equal(t, w.scrape(t)["proxy_requests_in_flight"], 1.0)
	close(done)
	w.ended(stream, answered)
	assert.Equal(t, stream.body.String(), event+event)

	for _, conn := range crowd {
		conn.Close()
	}
	after := w.dial() // behind them all in the kernel's queue
	after.send("GET /health HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n")
	assert.Equal(t, after.rest().status, 200)
	w.until(t, func(m map[string]float64) string {
		if n := m["process_open_fds"]; n == 0 || n > 30 {
			return fmt.Sprintf("%v descriptors", n)
		}
		return ""
	})
	ask("/recovered", answered)
	w.ended(w.post("/after", "{}"), answered)
}
