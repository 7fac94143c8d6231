package upstream

import (
	"sync"
	"time"
)

// clock notices that the machine slept. During a sleep the wall clock goes on, but the monotonic clock stops, and so do the timers
// that watch a connection. An idle connection then looks alive though its peer is gone, and the next request on it would wait
// deadPeerAfter.
type clock struct {
	mu   sync.Mutex
	last time.Time
}

// minSleep is the shortest sleep that counts. Setting the clock can move it by less.
const minSleep = 10 * time.Second

// slept reports whether the machine slept since the last call.
func (c *clock) slept() bool {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.last
	c.last = now
	return !last.IsZero() && isSleep(now.Round(0).Sub(last.Round(0)), now.Sub(last))
}

func isSleep(wall, monotonic time.Duration) bool { return wall-monotonic >= minSleep }
