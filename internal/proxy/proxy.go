// Package proxy forwards Anthropic API requests and adds one flag to one header.
//
// A request passes, from the outside in:
//
//	observe      gives it an id; counts and logs it when its last byte is out
//	locate       finds its URL at the upstream, path and query as received
//	headerlimit  refuses too many header lines
//	body         reads its body into memory, within a budget shared by all bodies (budget)
//	queue        waits for one of MaxConnections slots
//	rewrite      applies the header rules
//	upstream     makes up to Retries + 1 attempts (package upstream)
//	received     notes what came back, and releases the body
//	copy         passes it on, piece by piece
//
// Each is a file or a function of that name; the last four are steps of forward. If a response cannot be completed, abort panics
// with http.ErrAbortHandler: the connection closes without a final chunk. Nothing here recovers that panic, and everything that
// must happen at the end happens in a defer.
package proxy

import (
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
	"github.com/basher83/anthropic-oauth-proxy/internal/upstream"
)

// Options are the proxy's settings. All are required, but Rules may be empty.
type Options struct {
	Upstream         *url.URL      // scheme, host and an optional path prefix
	Timeout          time.Duration // for an attempt's response headers, for the upstream's silence, and for the client's
	Retries          int           // further attempts after a timeout
	MaxConnections   int           // requests proxied at once
	MaxBodyBytes     int64         // per request, inclusive
	MaxBufferedBytes int64         // for all bodies together; at least MaxBodyBytes
	Rules            []Rule
	Logger           *slog.Logger
	Draining         func() bool // whether responses should ask clients to leave the connection
}

type proxy struct {
	Options
	metrics  *metrics.Metrics
	upstream http.RoundTripper
}

// New returns the handler for all forwarded requests.
func New(opts Options, m *metrics.Metrics) http.Handler {
	p := &proxy{Options: opts, metrics: m}
	p.upstream = upstream.New(upstream.Options{
		HeaderTimeout: p.Timeout,
		IdleTimeout:   p.Timeout,
		Retries:       p.Retries,
		MaxIdleConns:  p.MaxConnections,
		PlainHTTP:     p.Upstream.Scheme == "http",
		OnAttempt:     p.attempted,
	})
	return p.observe(p.locate(p.limitHeaders(p.body(p.queue(http.HandlerFunc(p.forward))))))
}
