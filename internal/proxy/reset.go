package proxy

import (
	"context"
	"net"
	"net/http"
)

type connKey struct{}

// WithConn is for http.Server.ConnContext: it gives requests their connection, which resetOnClose needs.
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
