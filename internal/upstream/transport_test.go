package upstream

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// Row 2.1: the settings that no test here can wait for.
func TestTransportSettings(t *testing.T) {
	assert.Equal(t, dialTimeout, 30*time.Second)
	assert.Equal(t, handshakeTimeout, 10*time.Second)
}

// Row 2.9: after a sleep no idle connection is used. Setting the clock, or a busy machine, does not count as a sleep.
func TestSleep(t *testing.T) {
	assert.Assert(t, isSleep(8*time.Hour, 3*time.Second))
	assert.Assert(t, isSleep(time.Minute, 0))
	assert.Assert(t, !isSleep(time.Hour, time.Hour))
	assert.Assert(t, !isSleep(5*time.Second, 0))
	assert.Assert(t, !isSleep(-time.Hour, time.Second))
	var c clock
	assert.Assert(t, !c.slept())
	assert.Assert(t, !c.slept())
}
