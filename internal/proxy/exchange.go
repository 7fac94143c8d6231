package proxy

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
	"github.com/basher83/anthropic-oauth-proxy/internal/target"
	"github.com/basher83/anthropic-oauth-proxy/internal/upstream"
)

// exchange is one request and its answer: what the log line will say. It belongs to the handler's goroutine.
type exchange struct {
	id       string // ours; inbound ids are not trusted
	request  *http.Request
	start    time.Time
	attempts int
	bytesIn  int64
	bytesOut int64

	status      int           // 0 until decided
	headersTime time.Duration // from start until the status was decided
	upstreamURL *url.URL      // where it goes
	held        *heldBody     // its body, if it has one
	upstreamID  string        // the upstream's request-id
	answered    bool          // the answer is the upstream's, not our own error
	eventStream bool          // it is a text/event-stream
	failure     error         // why the exchange did not go well; its text is safe to log
	readErr     error         // what ended the upstream's body, if not its end
	finished    bool          // the handlers returned; else they panicked to abort the connection
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

// outcome says how the exchange ended. An abort has one cause but several symptoms: a client that leaves also ends the
// read from the upstream, so who ended the request context is asked first. For an upstream that broke off it also notes why.
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

// log writes the request's line (contract section 8): no query, no header value but the two ids, no body.
func (x *exchange) log(logger *slog.Logger, outcome metrics.Outcome) {
	level := slog.LevelInfo
	if x.status >= 500 && !x.answered || outcome != metrics.Complete && outcome != metrics.ClientGone {
		level = slog.LevelWarn
	}
	attrs := []slog.Attr{
		slog.String("request_id", x.id),
		slog.String("upstream_request_id", x.upstreamID),
		slog.String("method", x.request.Method),
		slog.String("path", target.Path(x.request.RequestURI)),
		slog.Int("status", x.status),
		slog.Int("attempts", x.attempts),
		slog.Int64("bytes_in", x.bytesIn),
		slog.Int64("bytes_out", x.bytesOut),
		slog.Int64("headers_ms", x.headersTime.Milliseconds()),
		slog.Int64("duration_ms", time.Since(x.start).Milliseconds()),
		slog.String("outcome", string(outcome)),
	}
	if x.failure != nil {
		attrs = append(attrs, slog.String("error", x.failure.Error()))
	}
	logger.LogAttrs(context.Background(), level, "request", attrs...)
}
