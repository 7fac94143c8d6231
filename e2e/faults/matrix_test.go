package faults

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

// moment says how far the answer has got when a fault happens.
type moment string

const (
	beforeHeaders moment = "before the headers"
	afterHeaders  moment = "after the headers"
	midEvent      moment = "within an event"
)

// fault is a row of the matrix. R is the type of a request over its protocol.
type fault[R player] struct {
	name       string
	do         func(R)
	reason     string // the reason in the log and in our errors
	connection bool   // it hits every request on the connection
	sent       int    // how often a request is sent if the fault comes before the headers; default: once
}

// Reasons in the log and in the answers to the client.
const (
	closedConnection = "the upstream closed the connection"
	leftUs           = "the upstream closed the HTTP/2 connection"
	notHTTP          = "the answer was not valid HTTP"
	noAnswer         = "timeout after 1s (1 attempts): no response headers"
)

// strike makes the fault happen to a request. A sibling request runs meanwhile, on the same connection if the protocol allows, and a
// stream on another connection.
func (f fault[R]) strike(t *testing.T, m moment, up peer, on func(path string, script func(R))) {
	t.Parallel()
	want, reason, sent := broken, f.reason, 1
	if m == beforeHeaders {
		want, sent = failed, max(1, f.sent)
	} else if f.sent > 0 { // after the headers a refusal is an ordinary reset
		reason = "reset the HTTP/2 stream (REFUSED_STREAM)"
	}
	var settings []string
	if f.reason == noAnswer {
		settings = []string{"timeout_secs = 1"}
		if want = timedOut; m != beforeHeaders {
			want, reason = silent, "" // the outcome already says it
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
	if want == timedOut { // the upstream may have read it, so an SDK must not retry on top of our attempts
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
	assert.Equal(t, up.requests("/faulty"), sent, "the number of times the request was sent")
}

// tells checks that a request's log line gives the reason.
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
