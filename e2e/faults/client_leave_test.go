package faults

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// departure is a row of the matrix: the moment at which a client leaves. leave has it leave in one of the three ways that TCP has,
// and demands that its request ends as told.
type departure struct {
	moment   string
	settings []string
	test     func(w between, leave func(c *client, want end))
	reach    int // how many requests for /faulty reach the upstream
}

var departures = []departure{
	{"within the body", nil, func(w between, leave func(*client, end)) {
		c := w.begin("POST", "/faulty", "Content-Length: 500", "first")
		w.reaches("proxy_held_body_bytes", 500)
		leave(c, left)
	}, 0},
	{"within a chunked body", nil, func(w between, leave func(*client, end)) {
		c := w.begin("POST", "/faulty", "Transfer-Encoding: chunked", "5\r\nfirst\r\n")
		w.reaches("proxy_held_body_bytes", 10<<20)
		leave(c, left)
	}, 0},
	{"before the last chunk is whole", nil, func(w between, leave func(*client, end)) {
		c := w.begin("POST", "/faulty", "Transfer-Encoding: chunked", "5\r\nfirst\r\n0\r\n")
		w.reaches("proxy_held_body_bytes", 10<<20)
		leave(c, left)
	}, 0},
	{"within a trailer", nil, func(w between, leave func(*client, end)) {
		c := w.begin("POST", "/faulty", "Transfer-Encoding: chunked", "5\r\nfirst\r\n0\r\nX-A: ")
		w.reaches("proxy_held_body_bytes", 10<<20)
		leave(c, left)
	}, 0},
	{"before its body, with 100 Continue", nil, func(w between, leave func(*client, end)) {
		c := w.begin("POST", "/faulty", "Expect: 100-continue\r\nContent-Length: 500", "")
		status, err := c.in.ReadString('\n')
		assert.NilError(w.t, err)
		assert.Equal(w.t, status, "HTTP/1.1 100 Continue\r\n")
		_, err = c.in.ReadString('\n')
		assert.NilError(w.t, err)
		leave(c, left)
	}, 0},
	{"waiting for room for its body", []string{"max_body_bytes = 1000", "max_buffered_bytes = 1000"}, func(w between, leave func(*client, end)) {
		done := make(chan struct{})
		w.up.follow("/holder", script{late: true, until: done})
		holder := w.post("/holder", upload(900))
		w.reaches("proxy_held_body_bytes", 900)
		c := w.post("/faulty", upload(200))
		w.reaches("proxy_requests_queued", 1)
		leave(c, left)
		w.reaches("proxy_requests_queued", 0)
		w.reaches("proxy_held_body_bytes", 900)
		close(done)
		w.ended(holder, answered)
	}, 0},
	{"in the queue", []string{"max_connections = 2"}, func(w between, leave func(*client, end)) { // one is for the stream beside
		done := make(chan struct{})
		w.up.follow("/holder", script{late: true, until: done})
		holder := w.post("/holder", "{}")
		w.reaches("proxy_requests_in_flight", 2)
		c := w.post("/faulty", upload(200))
		w.reaches("proxy_requests_queued", 1)
		leave(c, left)
		w.reaches("proxy_requests_queued", 0)
		w.reaches("proxy_held_body_bytes", 2) // the holder's
		close(done)
		w.ended(holder, answered)
	}, 0},
	{"before the headers", nil, func(w between, leave func(*client, end)) {
		gone := make(chan struct{})
		w.up.follow("/faulty", script{late: true, gone: gone})
		c := w.post("/faulty", upload(100<<10))
		w.up.await("/faulty", 1)
		leave(c, left)
		wait(w.t, gone, "the proxy gives up its request")
	}, 1},
	{"within the second attempt", []string{"timeout_secs = 2", "retries = 1"}, func(w between, leave func(*client, end)) {
		w.up.follow("/faulty", script{late: true, until: make(chan struct{})})
		c := w.post("/faulty", "{}")
		w.up.await("/faulty", 2)
		leave(c, left)
	}, 2},
	{"within the answer", nil, func(w between, leave func(*client, end)) {
		gone := make(chan struct{})
		w.up.follow("/faulty", script{gone: gone})
		leave(w.open("/faulty"), leftWithin)
		wait(w.t, gone, "the proxy gives up its request")
	}, 1},
	{"within an answer of which it takes no more", nil, func(w between, leave func(*client, end)) {
		gone := make(chan struct{})
		w.up.follow("/faulty", script{flood: true, gone: gone})
		c := w.open("/faulty")
		w.standsStill("proxy_response_bytes_total")
		leave(c, leftWithin)
		wait(w.t, gone, "the proxy gives up its request")
	}, 1},
	{"between two requests", nil, func(w between, leave func(*client, end)) {
		leave(w.post("/good", "{}"), answered)
	}, 0},
}

// TestClientLeaves is the matrix: upstream × moment × way to leave (contract row 2.8).
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	for _, p := range protocols {
		for _, d := range departures {
			for _, how := range []string{"close", "half-close", "reset"} {
				t.Run(strings.Join([]string{p.name, d.moment, how}, "/"), func(t *testing.T) {
					t.Parallel()
					w := p.open(t, d.settings...)
					d.test(w, func(c *client, want end) { w.leaves(c, how, want) })
					w.undisturbed()
					assert.Equal(t, w.up.requests("/faulty"), d.reach)
				})
			}
		}
	}
}

// begin sends the beginning of a request.
func (w between) begin(method, path, header, body string) *client {
	w.t.Helper()
	c := w.dial()
	c.method, c.path = method, path
	c.send(fmt.Sprintf("%s %s HTTP/1.1\r\nHost: proxy\r\n%s\r\n\r\n%s", method, path, header, body))
	return c
}

// leaves ends a client's connection, or its side of it. To one that might still read, nothing is said any more but that this is the end.
func (w between) leaves(c *client, how string, want end) {
	w.t.Helper()
	if want == answered {
		w.ended(c, want)
		c.leave(how)
	} else {
		c.leave(how)
		w.ended(c, want)
	}
	if how != "half-close" {
		return
	}
	c.SetReadDeadline(time.Now().Add(patience))
	rest, err := io.ReadAll(c.in)
	assert.Assert(w.t, !isTimeout(err), "the proxy does not close its side of the connection")
	if want != leftWithin {
		assert.Equal(w.t, string(rest), "")
	}
	assert.Assert(w.t, !strings.Contains(string(rest), "\r\n0\r\n"), "half an answer came to a proper end")
}

// standsStill waits until a counter has grown and no longer does but for the stream beside.
func (w *world) standsStill(counter string) {
	w.t.Helper()
	const enough, looks = 256 << 10, 5
	var last []float64
	w.until(w.t, func(m map[string]float64) string {
		last = append(last, m[counter])
		last = last[max(0, len(last)-looks):]
		if len(last) == looks && last[0] > enough && last[looks-1]-last[0] <= float64(2*len(event)) {
			return ""
		}
		return fmt.Sprintf("%s goes on: %v", counter, last)
	})
}

// A connection that carries no whole head yet is no request, and leaves no trace.
func TestClientLeavesWithinHead(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"close", "half-close", "reset"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := protocols[0].open(t)
			before := w.scrape(t)["process_open_fds"]
			for _, head := range []string{"", "P", "POST /faulty HTTP/1.1", "POST /faulty HTTP/1.1\r\nHos", "POST /faulty HTTP/1.1\r\nHost: p\r\nContent-Length: 5\r\n"} {
				c := w.dial()
				c.send(head)
				c.leave(how)
			}
			w.reaches("process_open_fds", before)
			w.undisturbed()
			assert.Equal(t, w.up.requests("/faulty"), 0)
		})
	}
}

// A crowd that leaves all at once, from everywhere, leaves nothing behind.
func TestClientsLeaveTogether(t *testing.T) {
	t.Parallel()
	const each = 30
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			w := p.open(t, fmt.Sprint("max_connections = ", 1+2*each)) // one is for the stream beside
			var waiting, streaming, queued []*client
			for i := range each {
				path := fmt.Sprint("/waiting-", i)
				w.up.follow(path, script{late: true, gone: make(chan struct{})})
				waiting = append(waiting, w.post(path, "{}"))
				w.up.await(path, 1)
				path = fmt.Sprint("/streaming-", i)
				w.up.follow(path, script{gone: make(chan struct{})})
				streaming = append(streaming, w.open(path))
			}
			for i := range each {
				queued = append(queued, w.post(fmt.Sprint("/queued-", i), "{}"))
			}
			w.reaches("proxy_requests_queued", each)
			leave := func(crowd []*client) {
				for _, c := range crowd {
					go c.Close()
				}
			}
			all := func(crowd []*client, want end) {
				for _, c := range crowd {
					w.ended(c, want)
				}
			}
			leave(queued) // first, since the queue moves on as the others leave
			all(queued, left)
			leave(slices.Concat(waiting, streaming))
			all(waiting, left)
			all(streaming, leftWithin)
			w.undisturbed()
		})
	}
}
