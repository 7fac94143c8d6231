package faults

import (
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// peer is what tests of clients need of a scripted upstream, over either protocol.
type peer interface {
	follow(path string, s script)
	arrives(path string, n int)
	requests(path string) int
	parted(n int)
	upstream() upstream
}

// script says what a peer does with a request. By default it reads the request, sends the beginning of an answer, waits, and sends the
// end.
type script struct {
	unread bool            // it does not read the body, and little of it fits into buffers
	late   bool            // the answer begins only after the wait
	flood  bool            // the answer is longer than any client reads
	aside  bool            // no other request uses its connection
	pulse  bool            // it sends events while it waits
	until  <-chan struct{} // if set, it waits until this is closed
	gone   chan<- struct{} // if set, it waits until the proxy cancels the request, and closes this instead of ending the answer
}

// inflow is a piece of a flood.
var inflow = strings.Repeat(event, 32<<10/len(event))

// player is what scripts need of a request.
type player interface {
	asked
	stream()               // begins an event stream as the answer
	send(text string) bool // sends a piece and reports whether another one can follow
	finish(text string)    // sends the last piece
	gone() bool            // waits until the proxy cancels the request
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

// watched is a world with a second stream that no fault may disturb. The stream begins before the fault, runs throughout, and is checked
// afterwards. Over HTTP/2 it has the first connection, which takes no further requests after its GOAWAY. Faults happen on later ones.
type watched struct {
	*world
	up     peer
	beside *conn
	finish chan struct{} // closed to let that stream end
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
	w.beside.expect(event) // so the proxy has read the GOAWAY
	return w
}

// undisturbed checks that the proxy still serves, then ends the second stream and checks that it received exactly its events.
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

// protocols are the upstreams that tests of clients run with.
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
		t.Fatalf("this did not happen in time: %s", what)
	}
	return v
}
