package upstream

import (
	"context"
	"net/http"
	"time"
)

// Options are the time limits for the upstream and the number of retries.
type Options struct {
	// HeaderTimeout limits one attempt, from its start to the response headers. Required, > 0.
	HeaderTimeout time.Duration
	// IdleTimeout limits the upstream's silence within a response. Required, > 0.
	IdleTimeout time.Duration
	// Retries is how many attempts may follow one that timed out. 0 turns retrying off.
	Retries int
	// MaxIdleConns is how many idle HTTP/1.1 connections are kept. It should equal the number of concurrent requests.
	MaxIdleConns int
	// PlainHTTP means that the upstream's URL is http://, not https://.
	PlainHTTP bool
	// OnAttempt, if not nil, is called in the caller's goroutine before attempt n (1, 2, …). From the second on,
	// previous is the timeout that ended the one before.
	OnAttempt func(ctx context.Context, n int, previous *Error)
}

// New returns the RoundTripper for the upstream, as the package comment describes it. Every error it returns is either
// an *Error or the cause of the request context's end.
func New(opts Options) http.RoundTripper {
	attempt := &attempt{next: newTransport(opts), headerTimeout: opts.HeaderTimeout, idleTimeout: opts.IdleTimeout}
	return &retry{next: attempt.roundTrip, retries: opts.Retries, onAttempt: opts.OnAttempt}
}
