package upstream

import (
	"net"
	"syscall"
	"testing"

	"gotest.tools/v3/assert"
)

// Row 2.5: a connection has no TCP_USER_TIMEOUT. It would end one whose peer is alive with a full window.
func TestNoUserTimeout(t *testing.T) {
	const userTimeout = 18 // TCP_USER_TIMEOUT, which package syscall does not name
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	assert.NilError(t, err)
	defer listener.Close()
	conn, err := newTransport(Options{}).DialContext(t.Context(), "tcp", listener.Addr().String())
	assert.NilError(t, err)
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	assert.NilError(t, err)
	var value int
	var optErr error
	assert.NilError(t, raw.Control(func(fd uintptr) {
		value, optErr = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, userTimeout)
	}))
	assert.NilError(t, optErr)
	assert.Equal(t, value, 0)
}
