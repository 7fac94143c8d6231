// Package socket makes reading from and writing to TCP connections cheaper, on Linux.
//
// Go announces every system call to its scheduler, in case it blocks. A call on a socket that is in non-blocking mode, as
// all of Go's are, never does, but the announcement is not free: it wakes the runtime's monitor thread whenever the process
// was idle before, and for a proxy of slow streams that is nearly every time. The monitor then wakes up every 20 µs for a
// while, to see whether the call still runs. For a stream's event that comes alone, this is a third of the CPU
// (docs/performance.md).
//
// Direct makes the same calls without announcing them, through the standard library's own way to a connection's
// descriptor (syscall.RawConn): waiting, deadlines and closing stay with the runtime's poller.
package socket

import "net"

// Listener makes the connections of l Direct.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return Direct(c), nil
}
