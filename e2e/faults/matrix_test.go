package faults

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

// moment says how far the answer is when a fault happens.
type moment string

const (
	beforeHeaders moment = "before the headers"
	afterHeaders  moment = "after the headers"
	midEvent      moment = "within an event"
)

// fault is a row of a matrix. R is a request of its protocol.
type fault[R player] struct {
	name       string
	do         func(R)
	reason     string // the reason that is told
	connection bool   // it hits all that is on the connection
	sent       int    // how often a request without headers is sent in all; default: once
}

// Reasons that the log and the client are told.
const (
	closedConnection = "the upstream closed the connection"
	leftUs           = "the upstream closed the HTTP/2 connection"
	notHTTP          = "the answer was not valid HTTP"
	noAnswer         = "timeout after 1s (1 attempts): no response headers"
)

// strike lets the fault happen to a request. Beside it another runs, on the same connection if the protocol allows, and a stream on
// another.
func (f fault[R]) strike(t *testing.T, m moment, up peer, on func(path string, script func(R))) {
	t.Parallel()
	want, reason, sent := broken, f.reason, 1
	if m == beforeHeaders {
		want, sent = failed, max(1, f.sent)
	} else if f.sent > 0 { // a refusal that comes after the headers is a reset like any other
		reason = "reset the HTTP/2 stream (REFUSED_STREAM)"
	}
	var settings []string
	if f.reason == noAnswer {
		settings = []string{"timeout_secs = 1"}
		if want = timedOut; m != beforeHeaders {
			want, reason = silent, "" // the outcome says it
		}
	}
	seen, struck := make(chan struct{}), make(chan struct{})
	up.follow("/sibling", script{pulse: true, until: struck})
	on("/faulty", func(r R) {
		r.whole()
		if m != beforeHeaders {
			r.stream()
		}
		if m == midEvent {
			r.send(half)
		}
		r.pause(seen)
		f.do(r)
	})
	w := watch(t, up, settings...)
	sibling := w.open("/sibling")
	c := w.post("/faulty", "{}")
	switch m {
	case afterHeaders:
		assert.NilError(t, c.head())
	case midEvent:
		c.expect(half)
	}
	close(seen)
	_, logged := w.ended(c, want)
	w.tells(logged, reason)
	if want == timedOut { // it may have been read: an SDK must not multiply the attempts
		assert.Equal(t, c.res.Header.Get("X-Should-Retry"), "false")
	}
	close(struck)
	if f.connection {
		w.ended(sibling, broken)
	} else {
		w.ended(sibling, answered)
	}
	w.bounded(100)
	w.undisturbed()
	assert.Equal(t, up.requests("/faulty"), sent, "so often the request was sent")
}

// tells demands that a request's line gives a reason.
func (w *world) tells(logged binary.Line, reason string) {
	w.t.Helper()
	text, _ := logged["error"].(string)
	assert.Assert(w.t, strings.Contains(text, reason), "the log gives the reason %q, want %q", text, reason)
}

// TestFaults is the matrix: upstream × fault × moment.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, m := range []moment{beforeHeaders, afterHeaders, midEvent} {
		for _, f := range h1faults {
			t.Run("HTTP/1.1/"+f.name+"/"+string(m), func(t *testing.T) {
				up := newH1Upstream(t)
				f.strike(t, m, up, up.on)
			})
		}
		for _, f := range h2faults {
			t.Run("HTTP/2/"+f.name+"/"+string(m), func(t *testing.T) {
				up := newH2Upstream(t)
				f.strike(t, m, up, up.on)
			})
		}
	}
}
