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
	state http.ConnState
	since time.Time
}

const (
	// freshTime is how long a new connection may take to send a request until it counts as idle.
	freshTime = time.Second
	// spare is how many connections may exceed the limit when none is idle. With a small limit they leave room for probes and
	// scrapes.
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
		c.open[conn] = connState{state, time.Now()}
		if state == http.StateActive {
			c.busy++
		}
	}
}

// enforceLimit closes the connection that has been idle for the longest time. If none is idle and the spare ones are in use, it closes the
// newest.
func (c *conns) enforceLimit(newest net.Conn) {
	longest := newest
	for conn, state := range c.open {
		if state.idle() && state.since.Before(c.open[longest].since) {
			longest = conn
		}
	}
	if longest == newest && len(c.open) <= c.limit+spare {
		return
	}
	longest.Close()
	c.set(longest, http.StateClosed)
}
