package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
	"github.com/basher83/anthropic-oauth-proxy/internal/upstream"
)

// exchange is one request and its answer, with everything for the metrics and the log line. It belongs to the handler's goroutine.
type exchange struct {
	id       string // made here; the client's ids are not trusted
	request  *http.Request
	start    time.Time
	attempts int
	bytesIn  int64
	bytesOut int64

	status      int           // 0 until decided
	headersTime time.Duration // from start until the status was decided
	upstreamURL *url.URL      // the request's URL at the upstream
	body        *requestBody  // nil if it has none
	upstreamID  string        // the upstream's request-id
	answered    bool          // the answer is the upstream's, not our own error
	eventStream bool          // it is a text/event-stream
	failure     error         // why the exchange failed; its text is safe to log
	readErr     error         // the error that ended the upstream's body, if any
	finished    bool          // the handlers returned; otherwise they panicked to abort the connection
	aborted     atomic.Bool   // the context has ended, so no write may get a new deadline: see copyBody
	end         time.Time     // when the answer was complete, if that was before the handlers' end
}

type exchangeKey struct{}

func newExchange(r *http.Request) *exchange {
	return &exchange{id: newID(), request: r, start: time.Now()}
}

// newID returns a request id (contract section 3): "req_" and 32 hex digits.
func newID() string {
	var id [16]byte
	rand.Read(id[:]) // never fails
	return "req_" + hex.EncodeToString(id[:])
}

func exchangeFrom(ctx context.Context) *exchange { return ctx.Value(exchangeKey{}).(*exchange) }

// outcome returns how the exchange ended. A client that leaves also ends the read from the upstream, so outcome checks the request's
// context first. If the upstream broke off, outcome also records why.
func (x *exchange) outcome() metrics.Outcome {
	ctx := x.request.Context()
	switch {
	case x.finished:
		return metrics.Complete
	case context.Cause(ctx) == ErrDraining:
		return metrics.Drained
	case ctx.Err() != nil:
		return metrics.ClientGone
	case errors.Is(x.readErr, upstream.ErrIdleTimeout):
		return metrics.IdleTimeout
	case x.readErr != nil:
		x.failure = errors.New(upstream.Reason(x.readErr))
		return metrics.UpstreamReset
	}
	return metrics.ClientGone // the write to the client failed
}
