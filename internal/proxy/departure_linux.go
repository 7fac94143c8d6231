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
// stream (POLLRDHUP) even behind unread bytes, unless there are so many that the end is still on the client's side.
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
