package upstream

import (
	"sync"
	"time"
)

// clock detects that the machine slept. During a sleep the wall clock advances, but the monotonic clock stops, and so do the timers of
// a connection. An idle connection then looks alive although its peer is gone. The next request on it would wait for deadPeerAfter.
type clock struct {
	mu   sync.Mutex
	last time.Time
}

// minSleep is the shortest time that counts as a sleep, so that small corrections of the clock do not.
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
