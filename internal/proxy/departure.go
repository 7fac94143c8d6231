package proxy

import (
	"context"
	"net"
	"net/http"
)

type connKey struct{}

// WithConn is for http.Server.ConnContext: it gives requests their connection. One that waits for room looks there whether
// its client has left; net/http does that only once the request body has been read, and a waiting body has not been.
// resetOnClose needs it, too.
func WithConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// resetOnClose makes the end of an HTTP/1.0 request's connection a reset: there, closing it is the proper end of an answer.
func resetOnClose(r *http.Request) {
	if r.ProtoAtLeast(1, 1) {
		return
	}
	if conn, ok := r.Context().Value(connKey{}).(interface{ SetLinger(sec int) error }); ok {
		conn.SetLinger(0)
	}
}
