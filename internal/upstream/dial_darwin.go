package upstream

import (
	"context"
	"syscall"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged makes TCP give up a peer that acknowledges nothing for deadPeerAfter: keep-alive probes wait while
// sent data is unacknowledged.
func limitUnacknowledged(_ context.Context, _, _ string, conn syscall.RawConn) error {
	var err error
	if cerr := conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_RXT_CONNDROPTIME, int(deadPeerAfter.Seconds()))
	}); cerr != nil {
		return cerr
	}
	return err
}
