package standin

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
)

// attempts counts the attempts with one Part's Name.
type attempts struct{ arrived, running int }

func (s *Server) arrive(method, name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if method == http.MethodPost {
		s.posts++
	}
	if name == "" {
		return 1
	}
	a := s.attempts[name]
	a.arrived++
	a.running++
	s.attempts[name] = a
	s.wake()
	return a.arrived
}

func (s *Server) depart(name string) {
	if name == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.attempts[name]
	a.running--
	s.attempts[name] = a
	s.wake()
}

// wake wakes all goroutines that wait for a change. The caller holds mu.
func (s *Server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Await waits until good accepts the counts of attempts with that name.
func (s *Server) Await(ctx context.Context, name string, good func(arrived, running int) bool) error {
	for {
		s.mu.Lock()
		a, changed := s.attempts[name], s.changed
		s.mu.Unlock()
		if good(a.arrived, a.running) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("of %s, %d attempts arrived and %d still run: %w", name, a.arrived, a.running, ctx.Err())
		}
	}
}

// Posts returns how many POSTs for Parts have arrived.
func (s *Server) Posts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.posts
}

// Release ends all answers that are held (End: Hold). `POST /play/release` does the same from outside.
func (s *Server) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.released)
	s.released = make(chan struct{})
}

func (s *Server) held() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.released
}

// Tick makes the nth paced stream send an event. It does nothing if the stream is far behind.
func (s *Server) Tick(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.streams) == 0 {
		return
	}
	select {
	case s.streams[n%len(s.streams)].tick <- struct{}{}:
	default:
	}
}

// Paced returns the number of paced streams, and how many events they have sent.
func (s *Server) Paced() (streams, events int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		events += st.sent
	}
	return len(s.streams), events
}

// Hangup makes the next answer tell the proxy to leave its connection, which must do no harm.
func (s *Server) Hangup() { s.hangups.Add(1) }

// CloseConnections closes all connections and continues to serve.
func (s *Server) CloseConnections() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.conns {
		conn.Close()
	}
}

func (s *Server) track(conn net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.conns = append(s.conns, conn)
	case http.StateClosed, http.StateHijacked:
		s.conns = slices.DeleteFunc(s.conns, func(c net.Conn) bool { return c == conn })
	}
}
