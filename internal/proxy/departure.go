package proxy

import (
	"context"
	"net"
)

type connKey struct{}

// WithConn is for http.Server.ConnContext: it gives requests their connection. One that waits for room looks there whether
// its client has left; net/http does that only once the request body has been read, and a waiting body has not been.
func WithConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// resetOnClose makes the end of the request's connection a reset, which no client takes for the end of an answer.
func resetOnClose(ctx context.Context) {
	if conn, ok := ctx.Value(connKey{}).(interface{ SetLinger(sec int) error }); ok {
		conn.SetLinger(0)
	}
}
