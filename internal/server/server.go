// Package server has the listener, the two paths that are not proxied, and the drain. It knows nothing of proxying.
//
// It goes through four states: starting, running, draining, stopped. Running means that the listener is bound. Draining begins when
// the context of Serve ends:
//
//  1. The listener closes and /health answers 503. Open connections are still served, because their clients may be about to send
//     a request. Each response asks the client to leave (Connection: close).
//  2. When there are no connections, or none has been used for a while, the server stops.
//  3. At the deadline the remaining requests' contexts end, with Options.AbortCause, and their connections are closed.
package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	// Contract section 4: 32 KiB. net/http adds 4 KiB.
	maxHeaderBytes    = 28 << 10
	readHeaderTimeout = 10 * time.Second
	// idleTimeout closes unused client connections. Clients' pools close theirs much earlier (Go's after 90 s), so a request hardly ever
	// arrives just as we close.
	idleTimeout = 10 * time.Minute
	// bodyTimeout is how long net/http waits for the body of a request that we answer without reading it. The proxy sets its own deadlines.
	bodyTimeout = 15 * time.Second
	// ownTimeout is how long a client may read nothing of /health or /metrics (contract row 3.7).
	ownTimeout = 30 * time.Second
)

// Options are the server's settings; all but ConnContext and Bound are required.
type Options struct {
	Proxy       http.Handler  // everything but /health and /metrics; sets its own read deadlines
	Metrics     http.Handler  // GET /metrics
	Health      func() Counts // numbers for GET /health
	NotAllowed  http.Handler  // answers other methods on these two; Allow is set
	MaxConns    int           // connections at once; beyond that the longest idle one is closed
	Drain       time.Duration // how long running requests may continue after the context of Serve ends
	AbortCause  error         // the cause with which the request contexts end at that deadline
	Logger      *slog.Logger
	ConnContext func(context.Context, net.Conn) context.Context
	Bound       func(net.Addr) // called once, with the address on which it listens
}

// Server serves HTTP on a listener.
type Server struct {
	opts      Options
	http      *http.Server
	started   time.Time
	draining  atomic.Bool
	running   atomic.Int64 // requests in the proxy, including waiting ones
	conns     conns
	warnedTLS atomic.Int64 // the time of the last warning, in Unix seconds
	abort     context.CancelCauseFunc
}

// New returns a server that does not listen yet.
func New(opts Options) *Server {
	s := &Server{opts: opts, started: time.Now(), conns: newConns(opts.MaxConns)}
	base, abort := context.WithCancelCause(context.Background())
	s.abort = abort
	s.http = &http.Server{
		Handler:                      s.routes(),
		MaxHeaderBytes:               maxHeaderBytes,
		ReadHeaderTimeout:            readHeaderTimeout,
		ReadTimeout:                  bodyTimeout,
		IdleTimeout:                  idleTimeout,
		DisableGeneralOptionsHandler: true, // the upstream answers OPTIONS *
		BaseContext:                  func(net.Listener) context.Context { return base },
		ConnContext:                  opts.ConnContext,
		ConnState:                    s.conns.changed,
		ErrorLog:                     slog.NewLogLogger(opts.Logger.Handler(), slog.LevelWarn),
	}
	return s
}

// Draining reports whether the server has begun to drain.
func (s *Server) Draining() bool { return s.draining.Load() }

// Serve listens on addr and serves until ctx ends; then it drains and returns nil. It returns an error if it cannot
// listen, or if the listener breaks.
func (s *Server) Serve(ctx context.Context, addr string) error {
	s.state("starting")
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err // it begins with "listen"
	}
	return s.serve(ctx, &plainListener{TCPListener: listener.(*net.TCPListener), warn: s.warnTLS})
}

func (s *Server) serve(ctx context.Context, listener net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(listener) }()
	s.state("running", "addr", listener.Addr().String())
	if s.opts.Bound != nil {
		s.opts.Bound(listener.Addr())
	}
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	aborted := s.drain(listener)
	s.state("stopped", "aborted", aborted)
	return nil
}

// state logs that the server has reached a state.
func (s *Server) state(name string, attrs ...any) {
	s.opts.Logger.Info(name, append([]any{"state", name}, attrs...)...)
}
