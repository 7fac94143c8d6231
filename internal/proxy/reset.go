package proxy

import (
	"context"
	"net"
	"net/http"
)

type connKey struct{}

// WithConn is for http.Server.ConnContext. It stores the connection in the context, because resetOnClose needs it.
func WithConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// resetOnClose makes the connection of an HTTP/1.0 request end with a reset. A normal close would look like the proper end of the
// answer.
func resetOnClose(r *http.Request) {
	if r.ProtoAtLeast(1, 1) {
		return
	}
	if conn, ok := r.Context().Value(connKey{}).(interface{ SetLinger(sec int) error }); ok {
		conn.SetLinger(0)
	}
}
