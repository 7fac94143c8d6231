package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
	"github.com/basher83/anthropic-oauth-proxy/internal/upstream"
)

// ErrDraining must be the cause of the request context's end when the drain's deadline ends it; any other cause counts
// as the client's departure.
var ErrDraining = errors.New("the drain's deadline passed")

// apiError is the shape of our own errors (contract section 3): the API's, with a type of our own.
type apiError struct {
	Type  string `json:"type"`
	Error struct {
		Type      string `json:"type"`
		Message   string `json:"message"`
		RequestID string `json:"request_id"`
	} `json:"error"`
	RequestID string `json:"request_id"`
}

// writeError answers with an error in the proxy's shape. message must not quote the request or the upstream.
func writeError(w http.ResponseWriter, status int, id, message string) {
	body := apiError{Type: "error", RequestID: id}
	body.Error.Type, body.Error.Message, body.Error.RequestID = "proxy_error", message, id
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings always marshal
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	h.Set("Request-Id", id)
	w.WriteHeader(status)
	w.Write(text)
}

// NotAllowed answers a method that a path does not support, in the proxy's error shape. The caller has set Allow.
func NotAllowed(w http.ResponseWriter, r *http.Request) {
	writeError(w, http.StatusMethodNotAllowed, newID(), "only GET and HEAD are allowed here")
}

// refuse answers a request that must not go upstream.
func (p *proxy) refuse(w http.ResponseWriter, x *exchange, status int, message string) {
	x.failure = errors.New(message)
	p.metrics.Failed(metrics.InvalidRequest)
	writeError(w, status, x.id, message)
}

// fail is the ReverseProxy's ErrorHandler: it answers for an upstream that did not. To a client that has left, or whose
// connection is to be aborted, nothing is written.
func (p *proxy) fail(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeFrom(r.Context())
	if x.request.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	var failed *upstream.Error
	if !errors.As(err, &failed) {
		// ReverseProxy's own objection to the request; its text quotes the request.
		p.refuse(w, x, http.StatusBadRequest, "the request cannot be forwarded")
		return
	}
	x.failure = failed
	if failed.Kind == upstream.Timeout {
		p.metrics.Failed(metrics.Timeout)
		// The attempts have been made; an SDK's own retries would multiply them, and perhaps the bill.
		w.Header().Set("X-Should-Retry", "false")
		writeError(w, http.StatusGatewayTimeout, x.id, failed.Error())
		return
	}
	p.metrics.Failed(metrics.Connection)
	writeError(w, http.StatusBadGateway, x.id, failed.Error())
}

// attempted is upstream.Options.OnAttempt.
func (p *proxy) attempted(ctx context.Context, n int, previous error) {
	x := exchangeFrom(ctx)
	x.attempts = n
	if n > 1 {
		p.metrics.Retries.Inc()
		p.Logger.Warn("retry: the upstream may have run the request already", "request_id", x.id, "attempt", n, "error", previous.Error())
	}
}
