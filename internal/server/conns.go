package server

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// conns tracks all connections and which of them carry a request.
type conns struct {
	limit int // how many connections there may be

	mu   sync.Mutex
	open map[net.Conn]connState
	busy int       // how many carry a request
	used time.Time // when one of them was last used
}

type connState struct {
	state   http.ConnState
	surplus bool // it was opened when there were too many and none was idle
	since   time.Time
}

const (
	// freshTime is how long a new connection may take to send a request until it counts as idle.
	freshTime = time.Second
	// spare is how many connections there may be beyond the limit if none is idle. As many again are only for /health and /metrics: if
	// other clients made a probe fail, Kubernetes would end all streams.
	spare = 16
)

// idle reports whether a connection may be closed in favour of a new one.
func (s connState) idle() bool {
	return s.state == http.StateIdle || s.state == http.StateNew && time.Since(s.since) >= freshTime
}

func newConns(limit int) conns {
	return conns{limit: limit, open: map[net.Conn]connState{}}
}

// changed is http.Server.ConnState.
func (c *conns) changed(conn net.Conn, state http.ConnState) {
	if p, ok := conn.(*plainConn); ok {
		p.count(state)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used = time.Now()
	c.set(conn, state)
	if state == http.StateNew && len(c.open) > c.limit {
		c.enforceLimit(conn)
	}
}

func (c *conns) set(conn net.Conn, state http.ConnState) {
	before, known := c.open[conn]
	if before.state == http.StateActive && known {
		c.busy--
	}
	switch {
	case state == http.StateClosed:
		delete(c.open, conn)
	case known || state == http.StateNew: // else enforceLimit has closed it
		c.open[conn] = connState{state, before.surplus, time.Now()}
		if state == http.StateActive {
			c.busy++
		}
	}
}

// enforceLimit closes the connection that has been idle for the longest time. If none is idle and the spare ones are in use, the newest
// is surplus: it may request only /health and /metrics.
func (c *conns) enforceLimit(newest net.Conn) {
	longest := newest
	for conn, state := range c.open {
		if state.idle() && state.since.Before(c.open[longest].since) {
			longest = conn
		}
	}
	switch {
	case longest != newest, len(c.open) > c.limit+2*spare:
		longest.Close()
		c.set(longest, http.StateClosed)
		return
	case len(c.open) <= c.limit+spare:
		return
	}
	c.open[newest] = connState{http.StateNew, true, time.Now()}
	time.AfterFunc(freshTime, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if state := c.open[newest]; state.surplus && state.idle() {
			newest.Close()
			c.set(newest, http.StateClosed)
		}
	})
}

// surplus reports whether a connection's request must be refused, because there are too many connections.
func (c *conns) surplus(conn net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[conn].surplus && len(c.open) > c.limit+spare
}
