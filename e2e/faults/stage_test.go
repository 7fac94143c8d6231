package faults

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// stage is a scripted upstream: a listener, its connections, its scripts, and the requests so far. R is the type of a request over its
// protocol.
type stage[R asked] struct {
	t        *testing.T
	listener net.Listener
	url      string
	serving  sync.WaitGroup
	closing  chan struct{} // closed by close

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when anything guarded by mu changes, here or in requests and connections
	scripts map[string]func(R)
	conns   map[net.Conn]bool
	opened  int // connections
	seen    []R
}

type asked interface {
	target() string
	// whole waits until the whole request has been read. It returns false if the request breaks off.
	whole() bool
}

func newStage[R asked](t *testing.T, listener net.Listener, scheme string) *stage[R] {
	return &stage[R]{t: t, listener: listener, url: scheme + "://" + listener.Addr().String(), closing: make(chan struct{}),
		changed: make(chan struct{}), scripts: map[string]func(R){}, conns: map[net.Conn]bool{}}
}

// start serves connections until the end of the test. serve returns when it is finished with a connection.
func (s *stage[R]) start(serve func(net.Conn)) {
	s.serving.Go(func() {
		for {
			conn, err := s.listener.Accept()
			if err != nil {
				return
			}
			s.change(func() {
				s.conns[conn] = true
				s.opened++
			})
			s.serving.Go(func() {
				defer s.change(func() { delete(s.conns, conn) })
				defer conn.Close()
				if !isClosed(s.closing) {
					serve(conn)
				}
			})
		}
	})
	s.t.Cleanup(s.close)
}

// listen listens on loopback.
func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	return listener
}

// close ends all connections and waits for their goroutines.
func (s *stage[R]) close() {
	s.listener.Close()
	s.change(func() {
		if !isClosed(s.closing) {
			close(s.closing)
		}
		for conn := range s.conns {
			conn.Close()
		}
	})
	s.serving.Wait()
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func (s *stage[R]) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// reaches waits for a state, which it evaluates under mu. If the state does not occur in time, it fails the test and returns false. It
// also returns false when the stage closes.
func (s *stage[R]) reaches(what string, state func() bool) bool {
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		ok, changed := state(), s.changed
		s.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-changed:
		case <-s.closing:
			return false
		case <-deadline:
			s.t.Errorf("this did not happen in time: %s", what)
			return false
		}
	}
}

// on sets the script for requests for a path. Requests without a script are answered with 200.
func (s *stage[R]) on(path string, script func(R)) { s.change(func() { s.scripts[path] = script }) }

// accept records a request and returns its script, or nil if there is none.
func (s *stage[R]) accept(r R) (script func(R)) {
	s.change(func() {
		s.seen = append(s.seen, r)
		script = s.scripts[r.target()]
	})
	return script
}

// all returns the requests for a path; "" means all.
func (s *stage[R]) all(path string) []R {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.seen), func(r R) bool { return path != "" && r.target() != path })
}

// requests returns how many requests for a path have arrived.
func (s *stage[R]) requests(path string) int { return len(s.all(path)) }

// connections returns how many connections there have been.
func (s *stage[R]) connections() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

// arrives waits until n requests for a path have arrived.
func (s *stage[R]) arrives(path string, n int) {
	s.t.Helper()
	count := func() (came int) {
		for _, r := range s.seen {
			if r.target() == path {
				came++
			}
		}
		return came
	}
	assert.Assert(s.t, s.reaches(fmt.Sprint(n, " requests for ", path, " reach the upstream"), func() bool { return count() >= n }))
}

// parted waits until n connections have ended.
func (s *stage[R]) parted(n int) {
	s.t.Helper()
	assert.Assert(s.t, s.reaches("a connection is over", func() bool { return s.opened-len(s.conns) >= n }))
}

// pause waits for a signal of the test. Meanwhile it calls the given functions again and again.
func (s *stage[R]) pause(word <-chan struct{}, meanwhile ...func()) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			for _, do := range meanwhile {
				do()
			}
		case <-word:
			return
		case <-s.closing:
			return
		}
	}
}

// upstream describes the stage for newWorld.
func (s *stage[R]) upstream() upstream { return upstream{url: s.url, close: s.close} }

// upload returns a request body of n bytes in which no part repeats, so that a misplaced part is noticed.
func upload(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%x,", i*2654435761)
	}
	return b.String()[:n]
}

// write writes to a connection. An error does not fail the test, because the proxy may have closed the connection.
func write(conn net.Conn, text string) error {
	conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := io.WriteString(conn, text)
	return err
}
