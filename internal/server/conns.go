package server

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// linger is how long, in a drain, the open connections must have been unused before they are closed. A client that keeps
// connections may send its next request on one just as it is closed, and could not know whether that request was read.
// Answered with Connection: close instead, it leaves of its own accord. A drain of minutes, as in a cluster, can outwait
// the clients: Go's close a connection that they have not used for 90 s, others sooner. A short one, at a desk, is not
// to feel like a hang.
func linger(drain time.Duration) time.Duration {
	if drain >= 5*time.Minute {
		return 100 * time.Second
	}
	return time.Second
}

// conns knows which connections carry a request.
type conns struct {
	mu      sync.Mutex
	states  map[net.Conn]http.ConnState
	busy    int           // connections in StateActive
	changes chan struct{} // closed and replaced at every change
}

func newConns() conns {
	return conns{states: map[net.Conn]http.ConnState{}, changes: make(chan struct{})}
}

// changed is http.Server.ConnState.
func (c *conns) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.states[conn] == http.StateActive {
		c.busy--
	}
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(c.states, conn)
	default:
		c.states[conn] = state
	}
	if state == http.StateActive {
		c.busy++
	}
	close(c.changes)
	c.changes = make(chan struct{})
}

// active returns how many connections carry a request.
func (c *conns) active() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busy
}

// settle waits until there is no connection, or until none has been active for the given time. It returns false if ctx
// ends first.
func (c *conns) settle(ctx context.Context, unused time.Duration) bool {
	timer := time.NewTimer(unused)
	defer timer.Stop()
	for {
		c.mu.Lock()
		open, busy, changes := len(c.states), c.busy, c.changes
		c.mu.Unlock()
		if open == 0 {
			return true
		}
		var quiet <-chan time.Time
		if busy == 0 {
			timer.Reset(unused)
			quiet = timer.C
		}
		select {
		case <-quiet:
			return true
		case <-changes:
		case <-ctx.Done():
			return false
		}
	}
}

// wait waits until no connection carries a request, or for d.
func (c *conns) wait(d time.Duration) {
	timeout := time.After(d)
	for {
		c.mu.Lock()
		busy, changes := c.busy, c.changes
		c.mu.Unlock()
		if busy == 0 {
			return
		}
		select {
		case <-changes:
		case <-timeout:
			return
		}
	}
}
