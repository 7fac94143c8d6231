package faults

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

// departure is a row of the matrix: the moment at which a client leaves. leave has it leave in one of the three ways that TCP has,
// and demands that its request ends as told.
type departure struct {
	moment   string
	settings []string
	test     func(w watched, leave leaver)
	reach    int // at most so many requests for /faulty reach the upstream
}

// leaver has a client leave, does what is to be done then, and demands that its request ends as told.
type leaver func(c *conn, want end, then ...func())

var departures = []departure{
	{"within the body", nil, func(w watched, leave leaver) {
		c := w.begin("POST", "/faulty", "Content-Length: 500", "first")
		w.reaches("proxy_held_body_bytes", 500)
		leave(c, left)
	}, 0},
	{"within a chunked body", nil, func(w watched, leave leaver) {
		c := w.begin("POST", "/faulty", "Transfer-Encoding: chunked", "5\r\nfirst\r\n")
		w.reaches("proxy_held_body_bytes", 1<<20) // whatever comes
		leave(c, left)
	}, 0},
	{"before its body, with 100 Continue", nil, func(w watched, leave leaver) {
		c := w.begin("POST", "/faulty", "Expect: 100-continue\r\nContent-Length: 500", "")
		const hint = "HTTP/1.1 100 Continue\r\n\r\n"
		got := make([]byte, len(hint))
		_, err := io.ReadFull(c.in, got)
		assert.NilError(w.t, err)
		assert.Equal(w.t, string(got), hint)
		leave(c, left)
	}, 0},
	{"waiting for room for its body", []string{"max_body_bytes = 1000", "max_buffered_bytes = 1000"}, behind(900, true), 1}, // what has come is read, and sent
	{"in the queue", []string{"max_connections = 2"}, behind(2, false), 0},                                                  // one is for the stream beside
	{"within the upload", nil, during(script{unread: true, late: true}, upload(8<<20), left), 1},
	{"before the headers", nil, during(script{late: true}, upload(100<<10), left), 1},
	{"within the second attempt", []string{"timeout_secs = 2", "retries = 1"}, func(w watched, leave leaver) {
		w.up.follow("/faulty", script{late: true, until: make(chan struct{})})
		c := w.post("/faulty", "{}")
		w.up.arrives("/faulty", 2)
		leave(c, left)
	}, 2},
	{"within the answer", nil, during(script{}, "{}", leftWithin), 1},
	{"within an answer of which it takes no more", nil, during(script{flood: true}, "{}", leftWithin), 1},
	{"between two requests", nil, func(w watched, leave leaver) {
		leave(w.post("/good", "{}"), answered)
	}, 0},
}

// behind has a client leave that waits behind one with a body of so many bytes. If it waits for room, that is noticed when it gets it.
func behind(held int, room bool) func(watched, leaver) {
	return func(w watched, leave leaver) {
		done := make(chan struct{})
		w.up.follow("/holder", script{late: true, until: done})
		holder := w.post("/holder", upload(held))
		w.reaches("proxy_requests_in_flight", 2)
		c := w.post("/faulty", upload(300))
		w.reaches("proxy_requests_queued", 1)
		if room { // its whole body has come, so the upstream may see the request first, and must not answer it
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

// during has a client leave while the upstream follows a script, which must then be given up.
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
		wait(w.t, gone, "the proxy gives up its request")
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

// leaves ends a client's connection, or its side of it. To one that might still read, nothing is said any more but that this is the end.
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
	assert.Assert(w.t, !strings.Contains(rest, "\r\n0\r\n"), "half an answer came to a proper end")
}

// standsStill waits until a counter has grown and no longer does but for the stream beside.
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
		return fmt.Sprintf("%s goes on: %v", counter, last)
	})
}
