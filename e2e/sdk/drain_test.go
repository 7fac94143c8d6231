package sdk_test

import (
	"errors"
	"io"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// 6: a deploy in the middle of an answer. The answer is finished, then the process ends.
func TestDrainLetsTheStreamFinish(t *testing.T) {
	overBoth(t, binary.Config{}, func(t *testing.T, w world) {
		step := make(chan struct{})
		w.api.Play(standin.Scene{Step: step})
		events := rawEvents(patient(t), t, w)
		assert.Assert(t, events.Next(), "%v", events.Err())
		w.proxy.Terminate(t)
		w.proxy.State(t, "draining")
		close(step)
		last := ""
		for events.Next() {
			last = events.Event().Type
		}
		assert.NilError(t, events.Err())
		assert.Equal(t, last, "message_stop")
		assert.Equal(t, w.proxy.Stop(t), 0)
		assert.Equal(t, w.proxy.Only(t)["outcome"], "complete")
	})
}

// 6, 3.4: what the drain's deadline cuts off must not look complete.
func TestDrainDeadlineIsAnError(t *testing.T) {
	overBoth(t, binary.Config{Proxy: "drain_timeout_secs = 0"}, func(t *testing.T, w world) {
		w.api.Play(standin.Scene{Hang: true, After: 5})
		events := rawEvents(patient(t), t, w)
		for range 5 {
			assert.Assert(t, events.Next(), "%v", events.Err())
		}
		w.proxy.Terminate(t)
		assert.Assert(t, !events.Next())
		assert.Assert(t, errors.Is(events.Err(), io.ErrUnexpectedEOF), "want an unexpected EOF, got %v", events.Err())
		assert.Equal(t, w.proxy.Stop(t), 0)
		assert.Equal(t, w.proxy.Only(t)["outcome"], "drained")
	})
}
