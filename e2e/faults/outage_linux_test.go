package faults

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

// deadEnd returns the address of a listening socket to which nobody can connect: its accept queue is full, so the kernel drops further
// SYNs. end makes it an ordinary socket: it empties the queue and makes it longer. With the shortest queue, the kernel would reset one of
// two connections that come at once. That can happen because net/http continues to dial for an attempt that has ended.
func deadEnd(t *testing.T) (address string, end func() net.Listener) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	assert.NilError(t, err)
	file := os.NewFile(uintptr(fd), "")
	defer file.Close() // the listener has its own descriptor
	assert.NilError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	assert.NilError(t, unix.Listen(fd, 0))
	listener, err := net.FileListener(file)
	assert.NilError(t, err)
	t.Cleanup(func() { listener.Close() })
	address = listener.Addr().String()
	queued, err := net.Dial("tcp", address)
	assert.NilError(t, err)
	t.Cleanup(func() { queued.Close() })
	_, err = net.DialTimeout("tcp", address, 500*time.Millisecond)
	assert.Assert(t, isTimeout(err), "somebody could connect: %v", err)
	return address, func() net.Listener {
		raw, err := listener.(*net.TCPListener).SyscallConn()
		assert.NilError(t, err)
		assert.NilError(t, raw.Control(func(fd uintptr) { assert.NilError(t, unix.Listen(int(fd), 128)) }))
		conn, err := listener.Accept()
		assert.NilError(t, err)
		conn.Close()
		return listener
	}
}

// While nobody answers the proxy's SYNs, nothing can have been sent. So a client may safely retry (contract rows 2.1, 2.3, 2.4).
func TestOutage(t *testing.T) {
	t.Parallel()
	const retried = "retry: nothing of the request was sent"
	t.Run("lasts", func(t *testing.T) {
		t.Parallel()
		address, _ := deadEnd(t)
		w := newWorld(t, upstream{url: "http://" + address}, "timeout_secs = 600")
		c := w.post("/first", upload(100<<10))
		w.ended(c, timedOut)
		assert.Assert(t, strings.Contains(c.body.String(), "timeout after 30s (1 attempts): cannot connect"), c.body.String())
		assert.Equal(t, c.res.Header.Get("X-Should-Retry"), "")
	})
	t.Run("ends", func(t *testing.T) {
		t.Parallel()
		address, end := deadEnd(t)
		w := newWorld(t, upstream{url: "http://" + address}, "timeout_secs = 3", "retries = 5")
		c := w.post("/first", upload(100<<10))
		w.p.Line(t, "of a retry", func(l binary.Line) bool { return l["msg"] == retried })
		up := newH1UpstreamOn(t, end(), "http")
		_, logged := w.ended(c, answered)
		assert.Assert(t, logged["attempts"].(float64) > 1)
		assert.Equal(t, up.requests("/first"), 1)
	})
}
