package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

var errAbort = errors.New("the test's deadline")

// newOptions returns options that work. The proxy says which target it was asked for.
func newOptions() Options {
	say := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, text+" "+r.RequestURI) })
	}
	return Options{
		Proxy:      say("proxied"),
		Metrics:    say("metrics"),
		Health:     func() Counts { return Counts{RequestsServed: 3, ErrorsTotal: 2, InFlight: 1} },
		NotAllowed: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMethodNotAllowed) }),
		MaxConns:   100,
		Drain:      time.Hour,
		AbortCause: errAbort,
		Logger:     slog.New(slog.DiscardHandler),
	}
}

// pipes is a listener without a network, for tests in which time is not real.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080} }

// dial connects, or returns net.ErrClosed when the listener is closed.
func (p *pipes) dial() (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// bubble is a server on pipes inside a synctest bubble.
type bubble struct {
	t *testing.T
	*Server
	listener *pipes
	drained  chan int // what drain returned
	drains   sync.WaitGroup
}

// startIn serves in the bubble of the calling test.
func startIn(t *testing.T, o Options) *bubble {
	t.Helper()
	b := &bubble{t: t, Server: New(o), listener: newPipes(), drained: make(chan int, 1)}
	go b.http.Serve(b.listener)
	t.Cleanup(func() {
		b.http.Close()
		b.drains.Wait() // a bubble wants its goroutines back, also after a failure
	})
	return b
}

// beginDrain does what Serve does when its context ends.
func (b *bubble) beginDrain() {
	b.drains.Go(func() {
		b.drained <- b.drain(b.listener)
	})
}

func (b *bubble) hasDrained() bool { return len(b.drained) > 0 }

// client is a connection to the server whose requests are written by hand.
type client struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func (b *bubble) connect() *client {
	b.t.Helper()
	conn, err := b.listener.dial()
	assert.NilError(b.t, err)
	b.t.Cleanup(func() { conn.Close() })
	return &client{b.t, conn, bufio.NewReader(conn)}
}

func (c *client) write(text string) {
	c.t.Helper()
	_, err := io.WriteString(c, text)
	assert.NilError(c.t, err)
}

func (c *client) send(method, target string) {
	c.t.Helper()
	c.write(fmt.Sprintf("%s %s HTTP/1.1\r\nHost: proxy.test\r\n\r\n", method, target))
}

// receive reads a response and its body.
func (c *client) receive() (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.in, nil)
	assert.NilError(c.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	assert.NilError(c.t, err)
	return resp, string(body)
}

// get makes one request.
func (c *client) get(target string) (*http.Response, string) {
	c.t.Helper()
	c.send("GET", target)
	return c.receive()
}

// isClosed reports whether the server has closed the connection by now.
func (c *client) isClosed() bool {
	c.t.Helper()
	if c.SetReadDeadline(time.Now()) != nil { // what a pipe says when its other end is closed
		return true
	}
	_, err := c.in.ReadByte()
	assert.ErrorIs(c.t, err, os.ErrDeadlineExceeded)
	assert.NilError(c.t, c.SetReadDeadline(time.Time{}))
	return false
}

// closedAfter waits for the server to close the connection and returns how long that took.
func (c *client) closedAfter() time.Duration {
	c.t.Helper()
	start := time.Now()
	_, err := io.Copy(io.Discard, c.in)
	assert.NilError(c.t, err)
	return time.Since(start)
}

// hanging is a proxy handler whose requests last until the test lets them go.
type hanging struct {
	arrived, release chan struct{}
	causes           chan error // why each request's context ended, nil for those that were let go
}

func newHanging() *hanging {
	return &hanging{make(chan struct{}, 10), make(chan struct{}), make(chan error, 30)}
}

func (h *hanging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.arrived <- struct{}{}
	select {
	case <-h.release:
		h.causes <- nil
		io.WriteString(w, "done")
	case <-r.Context().Done():
		h.causes <- context.Cause(r.Context())
		panic(http.ErrAbortHandler)
	}
}
