package faults

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// A client that stops within its body is told so after timeout_secs, and what it held is free for others (contract row 1.12).
func TestClientStallsInBody(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, header, body string }{
		{"declared length", "Content-Length: 1000", "first"},
		{"nothing of a declared length", "Content-Length: 1000", ""},
		{"chunks", "Transfer-Encoding: chunked", "5\r\nfirst\r\n"},
		{"within a chunk", "Transfer-Encoding: chunked", "50\r\nfirst"},
		{"within a chunk's size", "Transfer-Encoding: chunked", "5\r\nfirst\r\n5"},
		{"within the last chunk", "Transfer-Encoding: chunked", "5\r\nfirst\r\n0\r\n"},
		{"within a trailer", "Transfer-Encoding: chunked", "5\r\nfirst\r\n0\r\nX-A: "},
		{"after 100 Continue", "Expect: 100-continue\r\nContent-Length: 1000", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := protocols[0].open(t, "timeout_secs = 2", "max_body_bytes = 1000", "max_buffered_bytes = 1500")
			c := w.begin("POST", "/stalled", tt.header, tt.body)
			w.reaches("proxy_held_body_bytes", 1000)
			waiting := w.post("/waiting", upload(600)) // for the room that it takes
			w.ended(c, refused)
			assert.Assert(t, strings.Contains(c.body.String(), "request body stalled: no byte for 2s"), c.body.String())
			_, err := c.in.ReadByte()
			assert.Equal(t, err, io.EOF, "the connection cannot be used again")
			w.ended(waiting, answered)
			w.undisturbed()
			assert.DeepEqual(t, w.asked(), []string{"POST /waiting " + upload(600)})
		})
	}
}

// A client that goes on, however slowly, has not stopped.
func TestClientSlowBody(t *testing.T) {
	t.Parallel()
	w := protocols[0].open(t, "timeout_secs = 3")
	declared := w.begin("POST", "/declared", "Content-Length: 14", "")
	chunked := w.begin("POST", "/chunked", "Transfer-Encoding: chunked", "")
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for i := range 14 { // 3.5 s
		<-tick.C
		piece := string(rune('a' + i))
		declared.send(piece)
		chunked.send(chunk(piece))
	}
	chunked.send("0\r\n\r\n")
	w.ended(declared, answered)
	w.ended(chunked, answered)
	w.undisturbed()
	assert.DeepEqual(t, w.asked(), []string{"POST /chunked abcdefghijklmn", "POST /declared abcdefghijklmn"})
}

// A client that does not come to the end of its head is disconnected, also one that goes on byte by byte for ever (contract section 4:
// after 10 s). Many of them keep nobody else out.
func TestClientSlowHead(t *testing.T) {
	t.Parallel()
	w := protocols[0].open(t)
	heads := []string{"", "P", "POST /slow HTTP/1.1\r\n", "POST /slow HTTP/1.1\r\nHost: p\r\nX-A: ", "POST /slow HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\n"}
	var slow []*client
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
// the upstream's silence (contract row 3.3). The same over HTTP/2 is in TestH2SlowReaders.
func TestClientSlowReaders(t *testing.T) {
	t.Parallel()
	const readers, size = 20, 32 << 20
	text := strings.Repeat(event, size/len(event))
	up := newH1Upstream(t)
	w := newH1World(t, up, "timeout_secs = 3")
	var slow []*client
	for i := range readers {
		path := fmt.Sprint("/flood-", i)
		up.on(path, func(r *h1request) {
			r.whole()
			r.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(text)))
			r.say(text)
		})
		c := w.post(path, "{}")
		c.expect(event)
		slow = append(slow, c)
	}
	w.standsStill("proxy_response_bytes_total")
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 40 { // 4 s, longer than the timeout
		<-tick.C
		w.ended(w.post("/good", "{}"), answered)
	}
	w.bounded(120)
	for i, c := range slow {
		if i > 0 {
			c.abort()
			w.ended(c, leftWithin)
			continue
		}
		w.ended(c, answered) // this one reads to the end after all
		assert.Assert(t, c.body.String() == text, "%d bytes", c.body.Len())
	}
	w.undisturbed()
}
