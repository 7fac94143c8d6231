package proxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"

	"github.com/basher83/anthropic-oauth-proxy/internal/upstream"
)

// ErrDraining must be the cause if the drain's deadline ends the request's context. Any other cause means that the client left.
var ErrDraining = errors.New("the drain's deadline passed")

// apiError is the shape of our own errors (contract section 3): the API's shape with our own type.
type apiError struct {
	Type  string `json:"type"`
	Error struct {
		Type      string `json:"type"`
		Message   string `json:"message"`
		RequestID string `json:"request_id"`
	} `json:"error"`
	RequestID string `json:"request_id"`
}

// writeError answers with one of our own errors. message must not quote the request or the upstream.
func writeError(w http.ResponseWriter, status int, id, message string) {
	body := apiError{Type: "error", RequestID: id}
	body.Error.Type, body.Error.Message, body.Error.RequestID = "proxy_error", message, id
	text, _ := json.Marshal(body) // strings always marshal
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	h.Set("Request-Id", id)
	w.WriteHeader(status)
	w.Write(text)
}

// NotAllowed answers a request whose method the path does not support. The caller has set Allow.
func NotAllowed(w http.ResponseWriter, r *http.Request) {
	writeError(w, http.StatusMethodNotAllowed, newID(), "only GET and HEAD are allowed here")
}

// refuse answers a request that must not go upstream, and gives up its connection. Without that, net/http would read the request's body before
// it answers.
func (p *proxy) refuse(w http.ResponseWriter, x *exchange, status int, message string) {
	w.Header().Set("Connection", "close")
	x.failure = errors.New(message)
	p.metrics.Failed(string(upstream.InvalidRequest))
	writeError(w, status, x.id, message)
}
