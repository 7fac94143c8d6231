//go:build !linux

package proxy

import "context"

// watchDeparture has no portable form: elsewhere a waiting client's departure shows when its turn comes.
func watchDeparture(ctx context.Context) (context.Context, func()) { return ctx, func() {} }
