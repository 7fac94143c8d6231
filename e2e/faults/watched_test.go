package faults

import (
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// watched is a world with a stream that no fault may disturb. It begins before the fault, goes on all the time, and is looked at after it.
type watched struct {
	*world
	beside *client
	finish chan struct{} // closed to let that stream come to its end
}

// newH2World has an HTTP/2 upstream. The undisturbed stream runs on the first connection, which takes no further request since it has
// sent GOAWAY; faults happen on later ones.
func newH2World(t *testing.T, up *h2Upstream, settings ...string) *watched {
	t.Helper()
	w := &watched{finish: make(chan struct{})}
	aside := make(chan struct{})
	up.on("/beside", func(s *h2stream) {
		s.stream()
		s.send(event)
		s.goAway(s.id, http2.ErrCodeNo)
		close(aside)
		w.goOn(up.closing, func() { s.send(event) }, func() { s.finish(event) })
	})
	w.world = newWorld(t, up, settings...)
	w.beside = w.open("/beside")
	wait(t, aside, "the proxy has read the GOAWAY")
	return w
}

// newH1World has an HTTP/1.1 upstream, on which every request has a connection of its own anyway.
func newH1World(t *testing.T, up *h1Upstream, settings ...string) *watched {
	t.Helper()
	w := &watched{finish: make(chan struct{})}
	up.on("/beside", func(r *h1request) {
		r.stream()
		r.send(event)
		w.goOn(up.closing, func() { r.send(event) }, func() { r.finish(event) })
	})
	w.world = newWorld(t, up, settings...)
	w.beside = w.open("/beside")
	return w
}

// goOn sends on the undisturbed stream, which would be silent for too long otherwise in tests of time limits.
func (w *watched) goOn(closing <-chan struct{}, send, finish func()) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			send()
		case <-w.finish:
			finish()
			return
		case <-closing:
			return
		}
	}
}

// undisturbed demands that the proxy goes on serving, and lets the stream beside the fault end, which must not have noticed anything.
func (w *watched) undisturbed() {
	w.t.Helper()
	after := w.post("/after", "{}")
	w.ended(after, answered)
	assert.Equal(w.t, after.body.String(), "ok")
	close(w.finish)
	w.ended(w.beside, answered)
	text := w.beside.body.String()
	assert.Assert(w.t, len(text) >= 2*len(event) && strings.ReplaceAll(text, event, "") == "", "%q", text)
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

// await waits until reached, which is called under mu. changed, under mu too, is closed and replaced when it may be worth another look.
func await(t *testing.T, what string, mu *sync.Mutex, changed *chan struct{}, reached func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		mu.Lock()
		ok, change := reached(), *changed
		mu.Unlock()
		if ok {
			return
		}
		select {
		case <-change:
		case <-deadline:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
