package faults

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

// departure is a row of the matrix: the moment at which a client leaves. The leaver ends the client's connection in one of TCP's
// three ways and checks how the request ended.
type departure struct {
	moment   string
	settings []string
	test     func(w watched, leave leaver)
	reach    int // how many requests for /faulty may reach the upstream
}

// leaver makes a client leave, calls the functions in then, and checks that its request ended as wanted.
type leaver func(c *conn, want end, then ...func())

var departures = []departure{
	{"within the body", nil, func(w watched, leave leaver) {
		c := w.begin("POST", "/faulty", "Content-Length: 500", "first")
		w.reaches("proxy_held_body_bytes", 500)
		leave(c, left)
	}, 0},
	{"within a chunked body", nil, func(w watched, leave leaver) {
		c := w.begin("POST", "/faulty", "Transfer-Encoding: chunked", "5\r\nfirst\r\n")
		w.reaches("proxy_held_body_bytes", 1<<20) // an unknown length reserves 1 MiB
		leave(c, left)
	}, 0},
	{"before its body, with 100 Continue", nil, func(w watched, leave leaver) {
		c := w.begin("POST", "/faulty", "Expect: 100-continue\r\nContent-Length: 500", "")
		const informational = "HTTP/1.1 100 Continue\r\n\r\n"
		got := make([]byte, len(informational))
		_, err := io.ReadFull(c.in, got)
		assert.NilError(w.t, err)
		assert.Equal(w.t, string(got), informational)
		leave(c, left)
	}, 0},
	{"waiting for the body budget", []string{"max_body_bytes = 1000", "max_buffered_bytes = 1000"}, behind(900, true), 1}, // what has arrived is read, and sent
	{"in the queue", []string{"max_connections = 2"}, behind(2, false), 0},                                                // one slot is for the second stream
	{"within the upload", nil, during(script{unread: true, late: true}, upload(8<<20), left), 1},
	{"before the headers", nil, during(script{late: true}, upload(100<<10), left), 1},
	{"within the second attempt", []string{"timeout_secs = 2", "retries = 1"}, func(w watched, leave leaver) {
		w.up.follow("/faulty", script{late: true, until: make(chan struct{})})
		c := w.post("/faulty", "{}")
		w.up.arrives("/faulty", 2)
		leave(c, left)
	}, 2},
	{"within the answer", nil, during(script{}, "{}", leftWithin), 1},
	{"within an answer that it does not read", nil, during(script{flood: true}, "{}", leftWithin), 1},
	{"between two requests", nil, func(w watched, leave leaver) {
		leave(w.post("/good", "{}"), answered)
	}, 0},
}

// behind makes a client leave while it waits behind another one, whose body has held bytes. With budget it waits for the body budget,
// else for a slot. The proxy notices a client that left the budget's queue only when its turn comes.
func behind(held int, budget bool) func(watched, leaver) {
	return func(w watched, leave leaver) {
		done := make(chan struct{})
		w.up.follow("/holder", script{late: true, until: done})
		holder := w.post("/holder", upload(held))
		w.reaches("proxy_requests_in_flight", 2)
		c := w.post("/faulty", upload(300))
		w.reaches("proxy_requests_queued", 1)
		if budget { // its whole body has arrived, so the request may reach the upstream, which must not answer it
			w.up.follow("/faulty", script{late: true, until: make(chan struct{})})
			leave(c, left, func() { close(done) })
		} else {
			leave(c, left)
			w.reaches("proxy_requests_queued", 0)
			w.reaches("proxy_held_body_bytes", float64(held))
			close(done)
		}
		w.ended(holder, answered)
	}
}

// during makes a client leave while the upstream follows a script. The proxy must then cancel the upstream's request.
func during(s script, body string, want end) func(watched, leaver) {
	return func(w watched, leave leaver) {
		gone := make(chan struct{})
		s.gone = gone
		w.up.follow("/faulty", s)
		c := w.post("/faulty", body)
		w.up.arrives("/faulty", 1)
		if !s.late {
			c.expect(event)
		}
		if s.flood {
			w.standsStill("proxy_response_bytes_total")
		}
		leave(c, want)
		wait(w.t, gone, "the proxy cancels its request")
		w.reaches("proxy_held_body_bytes", 0)
	}
}

// TestClientLeaves is the matrix: upstream × moment × way to leave (contract row 2.8).
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	for _, p := range protocols {
		for _, d := range departures {
			for _, how := range ways {
				t.Run(strings.Join([]string{p.name, d.moment, how}, "/"), func(t *testing.T) {
					t.Parallel()
					w := p.open(t, d.settings...)
					d.test(w, func(c *conn, want end, then ...func()) { w.leaves(c, how, want, then...) })
					w.undisturbed()
					assert.Assert(t, w.up.requests("/faulty") <= d.reach, "%d requests reached the upstream", w.up.requests("/faulty"))
				})
			}
		}
	}
}

// leaves ends a client's connection, or only the client's side of it. After a half-close the client may still read: it must get the end
// of the connection, and no new answer.
func (w watched) leaves(c *conn, how string, want end, then ...func()) {
	w.t.Helper()
	if want == answered {
		w.ended(c, want)
		c.leave(how)
	} else {
		c.leave(how)
		for _, do := range then {
			do()
		}
		w.ended(c, want)
	}
	if how != "half-close" {
		return
	}
	rest := c.closed()
	assert.Assert(w.t, want == leftWithin || rest == "", "%q", rest)
	assert.Assert(w.t, !strings.Contains(rest, "\r\n0\r\n"), "a truncated answer ended as if it were complete")
}

// standsStill waits until a counter has grown and then stopped. The few bytes of the second stream do not count.
func (w *world) standsStill(counter string) {
	w.t.Helper()
	const enough, looks = 256 << 10, 5
	var last []float64
	w.until(func(m binary.Metrics) string {
		last = append(last, m[counter])
		last = last[max(0, len(last)-looks):]
		if len(last) == looks && last[0] > enough && last[looks-1]-last[0] <= float64(2*len(event)) {
			return ""
		}
		return fmt.Sprintf("%s still grows: %v", counter, last)
	})
}
