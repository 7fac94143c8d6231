package upstream

import (
	"sync"
	"time"
)

// clock notices that the machine slept: the wall clock went on, the monotonic one, and with it every timer that watches a
// connection, did not. A connection from before looks alive, and its first request would wait deadPeerAfter.
type clock struct {
	mu   sync.Mutex
	last time.Time
}

// sleepAtLeast is what the two clocks may drift apart otherwise.
const sleepAtLeast = 10 * time.Second

// slept reports whether the machine slept since the last call.
func (c *clock) slept() bool {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.last
	c.last = now
	return !last.IsZero() && overslept(now.Round(0).Sub(last.Round(0)), now.Sub(last))
}

func overslept(wall, monotonic time.Duration) bool { return wall-monotonic >= sleepAtLeast }
