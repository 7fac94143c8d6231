package faults

import (
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// peer is a scripted upstream of either protocol, as far as tests of clients need to know it.
type peer interface {
	follow(path string, s script)
	arrives(path string, n int)
	requests(path string) int
	parted(n int)
	upstream() upstream
}

// script is what a peer does with a request. It reads all of it, sends the beginning of an answer, waits, and sends the end.
type script struct {
	unread bool            // it does not read the body, of which little finds room on the way
	late   bool            // the answer begins after the wait only
	flood  bool            // it is longer than any client's patience
	aside  bool            // its connection is for it alone
	pulse  bool            // while it waits it sends events
	until  <-chan struct{} // not nil: this is what it waits for
	gone   chan<- struct{} // not nil: it waits until the proxy gives the request up, and closes this; there is no end of the answer
}

// inflow is a piece of a flood.
var inflow = strings.Repeat(event, 32<<10/len(event))

// player is a request, as scripts see it.
type player interface {
	asked
	stream()               // begins an answer that is a stream of events
	send(text string) bool // sends a piece, and returns whether another can follow
	finish(text string)    // sends the last one
	gone() bool            // waits until the proxy gives the request up
	unread()
	aside()
	pause(word <-chan struct{}, meanwhile ...func())
}

func (s script) play(p player) {
	if s.unread {
		p.unread()
	} else if !p.whole() {
		if s.gone != nil {
			close(s.gone)
		}
		return
	}
	if !s.late {
		p.stream()
		p.send(event)
	}
	if s.aside {
		p.aside()
	}
	for s.flood && p.send(inflow) {
	}
	if s.gone != nil {
		if p.gone() {
			close(s.gone)
		}
		return
	}
	if s.pulse {
		p.pause(s.until, func() { p.send(event) })
	} else if s.until != nil {
		p.pause(s.until)
	}
	if s.late {
		p.stream()
	}
	p.finish(event)
}

// watched is a world with a stream that no fault may disturb. It begins before the fault, goes on all the time, and is looked at after
// it. Over HTTP/2 it runs on the first connection, which takes no further request since it has said GOAWAY; faults happen on later ones.
type watched struct {
	*world
	up     peer
	beside *conn
	finish chan struct{} // closed to let that stream come to its end
}

const (
	besidePath = "/beside"
	afterPath  = "/after"
)

func watch(t *testing.T, up peer, settings ...string) watched {
	t.Helper()
	w := watched{up: up, finish: make(chan struct{})}
	up.follow(besidePath, script{aside: true, pulse: true, until: w.finish})
	w.world = newWorld(t, up.upstream(), settings...)
	w.beside = w.open(besidePath)
	w.beside.expect(event) // so the GOAWAY has been read
	return w
}

// undisturbed demands that the proxy goes on serving, and lets the stream beside the fault end, which must not have noticed anything.
func (w watched) undisturbed() {
	w.t.Helper()
	after := w.post(afterPath, "{}")
	w.ended(after, answered)
	assert.Equal(w.t, after.body.String(), "ok")
	close(w.finish)
	w.ended(w.beside, answered)
	text := w.beside.body.String()
	assert.Assert(w.t, len(text) > 2*len(event) && strings.ReplaceAll(text, event, "") == "", "%q", text)
}

// protocols are the upstreams before which tests of clients run.
var protocols = []struct {
	name string
	open func(t *testing.T, settings ...string) watched
}{
	{"HTTP/1.1", func(t *testing.T, settings ...string) watched { return watch(t, newH1Upstream(t), settings...) }},
	{"HTTP/2", func(t *testing.T, settings ...string) watched { return watch(t, newH2Upstream(t), settings...) }},
}

// wait receives from a channel.
func wait[T any](t *testing.T, ch <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatalf("waited in vain until %s", what)
	}
	return v
}
