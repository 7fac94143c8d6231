package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// Direct returns c with reads and writes that the scheduler is not told of. What is no TCP connection comes back as it is.
// The result has c's methods, among them SyscallConn and SetLinger, and its errors.
func Direct(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c
	}
	d := &conn{TCPConn: tcp, raw: raw}
	d.read.trap, d.read.try = syscall.SYS_READ, d.read.once
	d.write.trap, d.write.try = syscall.SYS_WRITE, d.write.once
	return d
}

type conn struct {
	*net.TCPConn
	raw         syscall.RawConn
	read, write call
}

// call is a system call on the connection, with its arguments and results.
type call struct {
	mu    sync.Mutex
	trap  uintptr
	try   func(fd uintptr) (done bool) // once, made a function once and not for each call
	buf   []byte
	n     int
	errno syscall.Errno
}

// once makes the call, and reports whether it need not be made again when the socket is ready.
func (c *call) once(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(c.trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(c.buf))), uintptr(len(c.buf)))
		if errno != syscall.EINTR {
			c.n, c.errno = int(n), errno
			return errno != syscall.EAGAIN
		}
	}
}

// run makes the call with buf, waiting until the socket is ready for it.
func (c *call) run(on func(func(uintptr) bool) error, name string, buf []byte) (int, error) {
	c.buf = buf
	err := on(c.try)
	c.buf = nil
	if err == nil && c.errno != 0 {
		err = os.NewSyscallError(name, c.errno)
	}
	if err != nil {
		return 0, err
	}
	return c.n, nil
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.read.mu.Lock()
	defer c.read.mu.Unlock()
	n, err := c.read.run(c.raw.Read, "read", p)
	if err != nil {
		return 0, c.named("read", err)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (written int, err error) {
	c.write.mu.Lock()
	defer c.write.mu.Unlock()
	for written < len(p) {
		n, err := c.write.run(c.raw.Write, "write", p[written:])
		if err != nil {
			return written, c.named("write", err)
		}
		written += n
	}
	return written, nil
}

// named makes err what the net package's own Read or Write would have returned.
func (c *conn) named(op string, err error) error {
	var raw *net.OpError // RawConn's own say "raw-read"
	if errors.As(err, &raw) {
		err = raw.Err
	}
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
