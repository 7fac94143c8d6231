package server

import (
	"context"
	"net"
	"time"
)

// drain returns how many requests it had to abort.
func (s *Server) drain(listener net.Listener) (aborted int) {
	s.draining.Store(true)
	s.state("draining", "timeout_secs", s.opts.Drain.Seconds(), "requests", s.running.Load(), "hint", "Ctrl-C (SIGINT) twice exits at once; another SIGTERM changes nothing")
	listener.Close()
	deadline, cancel := context.WithTimeout(context.Background(), s.opts.Drain)
	defer cancel()
	if s.conns.settle(deadline, linger(s.opts.Drain)) {
		return 0
	}
	aborted = int(s.running.Load())
	s.abort(s.opts.AbortCause)
	s.conns.interrupt()
	// Waiting handlers end because their context ends, and log that. A handler that is stuck in a write ends with its connection.
	s.conns.wait(abortGrace)
	s.http.Close()
	s.conns.wait(abortGrace)
	return aborted
}

// abortGrace is how long aborted handlers may take to log their end.
const abortGrace = 2 * time.Second

// linger is how long the open connections must have been unused before a drain closes them. A client may send its next request on a
// kept connection just as it is closed, and then cannot know whether that request was read. If that request is answered with
// Connection: close instead, the client closes the connection itself. A drain of minutes, as in a cluster, can wait until the clients
// close unused connections: Go's do so after 90 s, others sooner. A short drain, on a developer's machine, must not feel like a hang.
func linger(drain time.Duration) time.Duration {
	if drain >= 5*time.Minute {
		return 100 * time.Second
	}
	return time.Second
}

// settle waits until there are no connections, or none has been used for the given time. Then it closes all of them. It returns false
// if ctx ends first.
func (c *conns) settle(ctx context.Context, unused time.Duration) bool {
	timer := time.NewTimer(unused)
	defer timer.Stop()
	for {
		c.mu.Lock()
		c.watched = true
		open, changes, quiet := len(c.open), c.changes, timer.C
		if c.busy > 0 {
			quiet = nil
		}
		c.mu.Unlock()
		if open == 0 {
			return true
		}
		select {
		case <-quiet:
			if c.closeUnless(changes) {
				return true
			}
		case <-changes:
		case <-ctx.Done():
			return false
		}
		timer.Reset(unused)
	}
}

// closeUnless closes all connections unless something has changed. http.Server.Shutdown is not suitable: it still reads requests from
// new connections, and drops them.
func (c *conns) closeUnless(changes chan struct{}) bool {
	c.mu.Lock() // a request that arrives now waits in changed, which net/http calls before it handles the request
	defer c.mu.Unlock()
	if changes != c.changes {
		return false
	}
	for conn := range c.open {
		conn.Close()
	}
	return true
}

// interrupt ends reads that wait for a client, such as for the rest of its request. Later reads check their context, so that must have
// ended before.
func (c *conns) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// wait waits until no connection carries a request, or for d.
func (c *conns) wait(d time.Duration) {
	timeout := time.After(d)
	for {
		c.mu.Lock()
		c.watched = true
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
