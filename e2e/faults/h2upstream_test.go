package faults

import (
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"gotest.tools/v3/assert"
)

// h2Upstream is an HTTP/2 upstream that says, frame by frame, what the scripts of a test tell it to. The fields are set before the
// first connection.
type h2Upstream struct {
	t        *testing.T
	listener net.Listener
	env      []string
	tls      *tls.Config
	settings []http2.Setting    // its first frame
	hello    func(*h2conn) bool // instead of its first frame; if it returns false, the connection is closed
	noAck    bool               // it never acknowledges the proxy's settings
	tight    bool               // it grants no window but by grant
	scripts  map[string]func(*h2stream)
	serving  sync.WaitGroup

	mu      sync.Mutex
	conns   []*h2conn
	seen    map[string]int // requests by path
	changed chan struct{}  // closed and replaced when a connection or a request comes
	closed  bool
	closing chan struct{} // closed by close
}

func newH2Upstream(t *testing.T) *h2Upstream {
	t.Helper()
	cert, env := goodCertificate(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	u := &h2Upstream{
		t: t, listener: listener, env: env,
		tls:     &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}},
		scripts: map[string]func(*h2stream){},
		seen:    map[string]int{},
		changed: make(chan struct{}),
		closing: make(chan struct{}),
	}
	u.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			u.serving.Go(func() { u.serve(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(u.close)
	return u
}

func (u *h2Upstream) url() string           { return "https://" + u.listener.Addr().String() }
func (u *h2Upstream) environment() []string { return u.env }

// on says what becomes of requests for a path. Others are answered with 200 when they are complete.
func (u *h2Upstream) on(path string, script func(*h2stream)) {
	u.change(func() { u.scripts[path] = script })
}

// change changes the upstream's state and wakes who waits for it.
func (u *h2Upstream) change(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f()
	close(u.changed)
	u.changed = make(chan struct{})
}

// close ends everything, and waits for the end.
func (u *h2Upstream) close() {
	u.listener.Close()
	u.change(func() {
		if !u.closed {
			close(u.closing)
		}
		u.closed = true
	})
	for _, c := range u.connections() {
		c.tcp.Close()
	}
	u.serving.Wait()
}

func (u *h2Upstream) connections() []*h2conn {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.conns)
}

// requests returns how many requests have come for a path.
func (u *h2Upstream) requests(path string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.seen[path]
}

// await waits until so many requests have come for a path.
func (u *h2Upstream) await(path string, n int) {
	u.t.Helper()
	u.until(fmt.Sprint(n, " requests for ", path, " reach the upstream"), func() bool { return u.seen[path] >= n })
}

func (u *h2Upstream) until(what string, reached func() bool) {
	u.t.Helper()
	await(u.t, what, &u.mu, &u.changed, reached)
}

// streams returns all streams that there have been.
func (u *h2Upstream) streams() (all []*h2stream) {
	for _, c := range u.connections() {
		c.mu.Lock()
		for _, s := range c.streams {
			all = append(all, s)
		}
		c.mu.Unlock()
	}
	return all
}

// find returns the latest stream for a path.
func (u *h2Upstream) find(path string) (found *h2stream) {
	for _, s := range u.streams() {
		if s.path == path && (found == nil || s.nth > found.nth || s.nth == found.nth && s.id > found.id) {
			found = s
		}
	}
	return found
}

// accept counts a request and runs its script.
func (u *h2Upstream) accept(s *h2stream) {
	var script func(*h2stream)
	u.change(func() {
		u.seen[s.path]++
		script = u.scripts[s.path]
	})
	if script == nil {
		script = func(s *h2stream) {
			if s.whole() {
				s.head(":status", "200")
				s.finish("ok")
			}
		}
	}
	u.serving.Go(func() { script(s) })
}

// serve runs one connection.
func (u *h2Upstream) serve(tcp *net.TCPConn) {
	c := newH2Conn(u, tcp)
	refused := false
	u.change(func() {
		c.nth = len(u.conns) + 1
		u.conns = append(u.conns, c)
		refused = u.closed
	})
	defer tcp.Close()
	defer close(c.done)
	defer c.change(func() { c.over = true })
	if refused {
		return
	}
	tcp.SetDeadline(time.Now().Add(patience))
	if err := c.tls.Handshake(); err != nil {
		c.change(func() { c.end = err })
		return
	}
	tcp.SetDeadline(time.Time{})
	if u.hello != nil && !u.hello(c) {
		return
	}
	if u.hello == nil {
		c.set(u.settings...)
	}
	u.serving.Go(c.writeControl)
	c.read()
}
