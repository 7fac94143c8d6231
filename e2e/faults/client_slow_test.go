package faults

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// A client that stops within its body is told so after timeout_secs, if that is less than 30 s, and what it held is free for others
// (contract row 1.12).
func TestClientStallsInBody(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, header, body string
		holds              float64
	}{
		{"declared length", "Content-Length: 1000", "first", 1000},
		{"nothing of a declared length", "Content-Length: 1000", "", 0},
		{"within a chunk", "Transfer-Encoding: chunked", "50\r\nfirst", 4096},
		{"within a chunk's size", "Transfer-Encoding: chunked", "5\r\nfirst\r\n5", 4096},
		{"within a trailer", "Transfer-Encoding: chunked", "5\r\nfirst\r\n0\r\nX-A: ", 4096},
		{"after 100 Continue", "Expect: 100-continue\r\nContent-Length: 1000", "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := protocols[0].open(t, "timeout_secs = 2")
			c := w.begin("POST", "/stalled", tt.header, tt.body)
			w.reaches("proxy_held_body_bytes", tt.holds)
			w.ended(c, stalled)
			assert.Assert(t, strings.Contains(c.body.String(), "request body stalled: no byte for 2s"), c.body.String())
			assert.Equal(t, c.closed(), "", "the connection cannot be used again")
			w.undisturbed()
			assert.DeepEqual(t, w.asked(), []string(nil))
		})
	}
}

// A client that does not come to the end of its head is disconnected, also one that goes on byte by byte for ever (contract section 4:
// after 10 s). Many of them keep nobody else out.
func TestClientSlowHead(t *testing.T) {
	t.Parallel()
	w := protocols[0].open(t)
	heads := []string{"", "P", "POST /slow HTTP/1.1\r\n", "POST /slow HTTP/1.1\r\nHost: p\r\nX-A: ", "POST /slow HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\n"}
	var slow []*conn
	for i := range 200 {
		c := w.dial()
		c.send(heads[i%len(heads)])
		slow = append(slow, c)
	}
	dribbling := w.dial()
	dribbling.send("POST /slow HTTP/1.1\r\nHost: p\r\nX-A: ")
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := dribbling.Write([]byte("a")); err != nil {
				return
			}
		}
	}()
	for range 20 {
		w.ended(w.post("/good", "{}"), answered)
	}
	for i, c := range slow {
		c.SetReadDeadline(time.Now().Add(patience))
		text, err := io.ReadAll(c)
		assert.Assert(t, !isTimeout(err), "still connected with a head of %q", heads[i%len(heads)])
		// net/http says 400 about a line that is none, or nothing.
		assert.Assert(t, len(text) == 0 || strings.HasPrefix(string(text), "HTTP/1.1 400 "), "%q", text)
	}
	wait(t, cut, "the client that dribbles is disconnected")
	w.undisturbed()
	assert.Equal(t, w.up.requests("/slow"), 0)
}

// Clients that read slowly, or not at all, hold up nobody else, and what is meant for them stays at the upstream. Their slowness is not
// the upstream's silence (contract row 3.3).
func TestClientSlowReaders(t *testing.T) {
	t.Parallel()
	const readers = 10
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			w := p.open(t, "timeout_secs = 3")
			var slow []*conn
			var gone []chan struct{}
			for i := range readers {
				path := fmt.Sprint("/flood-", i)
				gone = append(gone, make(chan struct{}))
				w.up.follow(path, script{flood: true, gone: gone[i]})
				slow = append(slow, w.open(path))
			}
			w.standsStill("proxy_response_bytes_total")
			for i := range 40 { // 4 s, longer than the timeout
				w.beside.expect(event)
				w.ended(w.post(fmt.Sprint("/good-", i), "{}"), answered)
			}
			w.bounded(120)
			for i, c := range slow {
				for range 100 { // what it reads after all is what was sent
					c.expect(inflow)
				}
				c.leave("reset")
				w.ended(c, leftWithin)
				wait(t, gone[i], "the proxy gives up its request")
			}
			w.undisturbed()
		})
	}
}
