package proxy

import (
	"context"
	"net"
)

type connKey struct{}

// WithConn is for http.Server.ConnContext: it lets a request that waits for room see its client leave. net/http looks
// for that only once the request body has been read, and a waiting body has not been.
func WithConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}
