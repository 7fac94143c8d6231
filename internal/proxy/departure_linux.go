package proxy

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchDeparture returns a context that ends when the client closes its side of the connection. Nothing may read from
// the connection until stop has been called. What the client has sent stays unread: the kernel reports the end of the
// stream (POLLRDHUP) even behind unread bytes. A body of more than about 100 KiB does not fit into the socket's buffer, and
// with its rest the end, too, stays on the client's side; such a departure shows when the request's turn comes.
func watchDeparture(ctx context.Context) (_ context.Context, stop func()) {
	conn, _ := ctx.Value(connKey{}).(net.Conn)
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return ctx, func() {}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		raw.Read(func(fd uintptr) bool { // called now, then at every event on the connection until it returns true
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
			n, err := unix.Poll(poll, 0)
			if err == nil && n > 0 {
				cancel()
				return true
			}
			return false
		})
	}()
	return ctx, func() {
		conn.SetReadDeadline(time.Unix(1, 0)) // ends raw.Read
		<-watching
		conn.SetReadDeadline(time.Time{})
		cancel()
	}
}
