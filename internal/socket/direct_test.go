package socket

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// pair returns the two ends of a TCP connection, both Direct.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	l := Listener(inner)
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	assert.NilError(t, err)
	accepted, err := l.Accept()
	assert.NilError(t, err)
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
	return Direct(dialed), accepted
}

// Everything arrives, in both directions at once, when writes have to wait for room and reads for data.
func TestCopy(t *testing.T) {
	a, b := pair(t)
	sent := make([]byte, 8<<20)
	rand.Read(sent)
	go func() {
		io.Copy(b, b) // an echo
		b.Close()
	}()
	go func() {
		n, err := a.Write(sent)
		assert.Check(t, err == nil && n == len(sent), "wrote %d: %v", n, err)
		a.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(a)
	assert.NilError(t, err)
	assert.Assert(t, bytes.Equal(got, sent))
}

// Errors are those of the net package's own connections.
func TestErrors(t *testing.T) {
	a, b := pair(t)
	opError := func(err error, op string) {
		t.Helper()
		var e *net.OpError
		assert.Assert(t, errors.As(err, &e), "%v", err)
		assert.Equal(t, e.Op, op)
		assert.Equal(t, e.Net, "tcp")
	}
	n, err := a.Read(nil)
	assert.Assert(t, n == 0 && err == nil)

	a.SetReadDeadline(time.Unix(1, 0))
	_, err = a.Read(make([]byte, 1))
	opError(err, "read")
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
	assert.Assert(t, err.(net.Error).Timeout())
	a.SetReadDeadline(time.Time{})

	b.(interface{ SetLinger(int) error }).SetLinger(0)
	b.Close()
	_, err = a.Read(make([]byte, 1))
	opError(err, "read")
	assert.ErrorIs(t, err, syscall.ECONNRESET)
	_, err = a.Write([]byte("x"))
	opError(err, "write")
	assert.ErrorIs(t, err, syscall.EPIPE)

	a.Close()
	_, err = a.Read(make([]byte, 1))
	opError(err, "read")
	assert.ErrorIs(t, err, net.ErrClosed)
	_, err = a.Write([]byte("x"))
	assert.ErrorIs(t, err, net.ErrClosed)
}

// A deadline and a close end a Read that waits already, as http.Server needs it.
func TestInterrupt(t *testing.T) {
	for name, interrupt := range map[string]func(net.Conn) error{
		"deadline": func(c net.Conn) error { return c.SetReadDeadline(time.Unix(1, 0)) },
		"close":    net.Conn.Close,
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := pair(t)
			done := make(chan error)
			go func() {
				_, err := a.Read(make([]byte, 1))
				done <- err
			}()
			assert.NilError(t, interrupt(a))
			assert.Assert(t, <-done != nil)
		})
	}
}

// The end of the peer's side is io.EOF, and what is not TCP is left alone.
func TestEnd(t *testing.T) {
	a, b := pair(t)
	b.Close()
	_, err := a.Read(make([]byte, 1))
	assert.Equal(t, err, io.EOF)

	p, _ := net.Pipe()
	assert.Equal(t, Direct(p), p)
}
