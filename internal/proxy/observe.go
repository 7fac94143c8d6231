package proxy

import (
	"context"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
	"github.com/basher83/anthropic-oauth-proxy/internal/target"
)

// observe gives the request its id and, when everything inside is over, its count and its log line. An aborted stream
// leaves the handlers by panic(http.ErrAbortHandler), which is why all of this happens in a defer and nothing recovers.
func (p *proxy) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := newExchange(r)
		rec := &recorder{ResponseWriter: w, control: http.NewResponseController(w), x: x, proxy: p}
		defer func() {
			outcome := x.outcome()
			switch {
			case x.status != 0:
			case outcome == metrics.Drained:
				rec.decide(http.StatusServiceUnavailable)
			default:
				rec.decide(statusClientGone)
			}
			if !x.finished {
				resetOnClose(r)
			}
			if x.answered {
				p.metrics.StreamEnded(outcome, x.eventStream, time.Since(x.start))
			}
			p.log(x, outcome)
		}()
		next.ServeHTTP(rec, r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x)))
		x.finished = true
	})
}

// statusClientGone is what an exchange counts as whose client left before it was sent any status, in the tradition of nginx
// (contract row 2.8).
const statusClientGone = 499

// recorder notes what is written to the client, and limits how long the client may take nothing of it.
type recorder struct {
	http.ResponseWriter
	*proxy
	control *http.ResponseController
	x       *exchange
}

// Unwrap lets http.ResponseController find flushing and deadlines.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// extend gives the client Timeout to take what is written next (contract row 3.7).
func (w *recorder) extend() {
	w.control.SetWriteDeadline(time.Now().Add(w.Timeout))
	if w.x.aborted.Load() {
		w.control.SetWriteDeadline(past)
	}
}

// WriteHeader passes informational responses on and decides the status at the first other one.
func (w *recorder) WriteHeader(code int) {
	w.extend()
	if code < 200 {
		w.ResponseWriter.WriteHeader(code)
		return
	}
	h := w.Header()
	h.Set("X-Proxy-Request-Id", w.x.id)
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // net/http would guess one
	}
	if w.Draining() {
		h.Set("Connection", "close") // so that the client's next request opens a connection, to our successor
	}
	if w.x.status == 0 {
		w.decide(code)
	}
	w.ResponseWriter.WriteHeader(code)
}

// decide counts the request under its status, once: before the client can have any of the answer, or when the exchange is over
// without one.
func (w *recorder) decide(status int) {
	w.x.status, w.x.headersTime = status, time.Since(w.x.start)
	w.metrics.Headers(w.x.request.Method, status, w.x.headersTime)
}

func (w *recorder) Write(p []byte) (int, error) {
	if w.x.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.x.request.Method == http.MethodHead {
		return w.ResponseWriter.Write(p) // which discards it
	}
	if w.x.bytesOut == 0 && len(p) > 0 {
		w.metrics.FirstByte(time.Since(w.x.start))
	}
	w.extend()
	n, err := w.ResponseWriter.Write(p)
	w.x.bytesOut += int64(n)
	w.metrics.BytesOut.Add(float64(n))
	return n, err
}

// log writes the request's line (contract section 8): no query, no header value but the two ids, no body.
func (p *proxy) log(x *exchange, outcome metrics.Outcome) {
	level := slog.LevelInfo
	if x.status >= 500 && !x.answered || outcome != metrics.Complete && outcome != metrics.ClientGone {
		level = slog.LevelWarn
	}
	if x.end.IsZero() {
		x.end = time.Now()
	}
	attrs := []slog.Attr{
		slog.String("request_id", x.id),
		slog.String("upstream_request_id", x.upstreamID),
		slog.String("method", x.request.Method),
		slog.String("path", loggedPath(x.request.RequestURI)),
		slog.Int("status", x.status),
		slog.Int("attempts", x.attempts),
		slog.Int64("bytes_in", x.bytesIn),
		slog.Int64("bytes_out", x.bytesOut),
		slog.Int64("headers_ms", x.headersTime.Milliseconds()),
		slog.Int64("duration_ms", x.end.Sub(x.start).Milliseconds()),
		slog.String("outcome", string(outcome)),
	}
	if x.failure != nil {
		attrs = append(attrs, slog.String("error", x.failure.Error()))
	}
	p.Logger.LogAttrs(context.Background(), level, "request", attrs...)
}

// maxLoggedPath is how much of a path the log keeps, in bytes.
const maxLoggedPath = 1 << 10

// userinfo is what stands before an @ where a URL has its host.
var userinfo = regexp.MustCompile(`//[^/]*@`)

// loggedPath is the path of a request target as the log may show it: without query, fragment and userinfo, at most maxLoggedPath
// long, control characters escaped.
func loggedPath(requestURI string) string {
	path, _, _ := strings.Cut(target.Path(requestURI), "#")
	path = userinfo.ReplaceAllLiteralString(path, "//")
	path = path[:min(len(path), maxLoggedPath)]
	if quoted := strconv.Quote(path); len(quoted) != len(path)+2 {
		path = quoted[1 : len(quoted)-1]
	}
	return path[:min(len(path), maxLoggedPath)]
}
