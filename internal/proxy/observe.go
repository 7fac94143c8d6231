package proxy

import (
	"context"
	"net/http"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
)

// observe gives the request its id. When the inner handlers have ended, it counts and logs the request. An aborted stream
// leaves them by panic(http.ErrAbortHandler). So observe does all of this in a defer, and nothing recovers the panic.
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
		rec.extend() // for the last chunk and the trailers
		x.finished = true
	})
}

// statusClientGone is the status in log and metrics if the client left before it got one, as in nginx (contract row 2.8).
const statusClientGone = 499

// recorder records what is written to the client, and limits how long the client may read nothing.
type recorder struct {
	http.ResponseWriter
	*proxy
	control *http.ResponseController
	x       *exchange
}

// Unwrap gives http.ResponseController access to flushing and deadlines.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// extend gives the client Timeout from now to read what is written next (contract row 3.7).
func (w *recorder) extend() {
	w.control.SetWriteDeadline(time.Now().Add(w.Timeout))
	if w.x.aborted.Load() {
		w.control.SetWriteDeadline(past)
	}
}

// WriteHeader forwards informational responses. The first other response decides the status.
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
		h.Set("Connection", "close") // so that the client's next request opens a new connection, which leads to the new process
	}
	if w.x.status == 0 {
		w.decide(code)
	}
	w.ResponseWriter.WriteHeader(code)
}

// decide counts the request by its status. It is called once: before the client gets any of the answer, or at the end of an exchange
// without an answer.
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
		w.metrics.FirstByte.Observe(time.Since(w.x.start).Seconds())
	}
	w.extend()
	n, err := w.ResponseWriter.Write(p)
	w.x.bytesOut += int64(n)
	w.metrics.BytesOut.Add(float64(n))
	return n, err
}
