package server

import (
	"context"
	"net"
	"time"
)

// drain closes the listener, lets running requests finish until the deadline, and aborts the rest. It returns how many it aborted.
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
	s.conns.wait()
	s.http.Close()
	s.conns.wait()
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
// if ctx ends first. http.Server.Shutdown is not suitable: it still reads requests from new connections, and drops them.
func (c *conns) settle(ctx context.Context, unused time.Duration) bool {
	begun := time.Now()
	return c.poll(ctx, func() bool {
		if len(c.open) > 0 && (c.busy > 0 || time.Since(begun) < unused || time.Since(c.used) < unused) {
			return false
		}
		for conn := range c.open { // a request that arrives now waits in changed, which net/http calls before it handles the request
			conn.Close()
		}
		return true
	})
}

// poll calls done with mu held, again and again, until it returns true. It returns false if ctx ends first.
func (c *conns) poll(ctx context.Context, done func() bool) bool {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		c.mu.Lock()
		ended := done()
		c.mu.Unlock()
		if ended {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// interrupt ends reads that wait for a client, such as for the rest of its request. The requests' contexts must have ended before: reads that
// begin later look only at those.
func (c *conns) interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for conn := range c.open {
		conn.SetReadDeadline(time.Unix(1, 0))
	}
}

// wait waits until no connection carries a request, or for abortGrace.
func (c *conns) wait() {
	ctx, cancel := context.WithTimeout(context.Background(), abortGrace)
	defer cancel()
	c.poll(ctx, func() bool { return c.busy == 0 })
}
