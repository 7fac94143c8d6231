package upstream

import (
	"context"
	"syscall"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged makes TCP give up a peer that acknowledges nothing for deadPeerAfter. Keep-alive probes alone do
// not see it: they wait while sent data is unacknowledged, and that is retransmitted for a quarter of an hour.
func limitUnacknowledged(_ context.Context, _, _ string, conn syscall.RawConn) error {
	var err error
	if cerr := conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadPeerAfter.Milliseconds()))
	}); cerr != nil {
		return cerr
	}
	return err
}
