package proxy

import (
	"context"
	"net"
	"net/http"
)

// abort ends the handler and closes the client's connection without a proper end of the answer, so that no client takes half an
// answer for a whole one (contract row 3.4). Deferred functions still run.
func abort() { panic(http.ErrAbortHandler) }

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
