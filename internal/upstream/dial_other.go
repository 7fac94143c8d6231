//go:build !linux && !darwin

package upstream

import (
	"context"
	"syscall"
)

// limitUnacknowledged has no portable form: elsewhere keep-alive probes and HTTP/2 PING must do.
func limitUnacknowledged(context.Context, string, string, syscall.RawConn) error { return nil }
