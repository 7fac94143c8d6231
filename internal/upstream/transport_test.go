package upstream

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// Rows 2.1, 2.5, 2.9: the settings that no test here can wait for.
func TestTransportSettings(t *testing.T) {
	assert.Equal(t, connectTimeout, 5*time.Second)
	assert.Equal(t, idleConnTimeout, 90*time.Second)
	assert.Assert(t, deadPeerAfter <= 60*time.Second)
	assert.Equal(t, pingAfter+pingTimeout, deadPeerAfter)
}
