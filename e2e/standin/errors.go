package standin

import (
	"fmt"
	"net/http"
)

// Error is a refusal in the original's shape.
type Error struct {
	Status  int
	Type    string
	Message string
	Header  map[string]string // further response headers
}

func (e *Error) body(id string) map[string]any {
	return map[string]any{
		"type":       "error",
		"error":      map[string]any{"type": e.Type, "message": e.Message},
		"request_id": id,
	}
}

func writeError(w http.ResponseWriter, r *http.Request, e *Error) {
	for name, value := range e.Header {
		w.Header().Set(name, value)
	}
	writeJSON(w, r, e.Status, e.body(w.Header().Get("Request-Id")))
}

func invalid(format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Type: "invalid_request_error", Message: fmt.Sprintf(format, args...)}
}

func unauthorized(message string) *Error {
	return &Error{Status: http.StatusUnauthorized, Type: "authentication_error", Message: message}
}

// Overloaded is the API's error when it has no capacity.
func Overloaded() *Error {
	return &Error{
		Status: 529, Type: "overloaded_error", Message: "Overloaded",
		Header: map[string]string{"X-Should-Retry": "true", "Retry-After-Ms": "1"},
	}
}

// RateLimited is the API's error when a window of the subscription is used up. The wait is one
// millisecond, so that a client that obeys it does not slow a test down.
func RateLimited() *Error {
	h := http.Header{}
	rateLimitHeaders(h, "rejected")
	e := &Error{
		Status: http.StatusTooManyRequests, Type: "rate_limit_error",
		Message: "This request would exceed your account's rate limit. Please try again later.",
		Header:  map[string]string{"Retry-After": "7999", "Retry-After-Ms": "1"},
	}
	for name := range h {
		e.Header[name] = h.Get(name)
	}
	return e
}

// NotClaudeCode is the API's error when an OAuth token is used outside of Claude Code. The proxy
// forwards it like any other.
func NotClaudeCode() *Error {
	return invalid("This credential is only authorized for use with Claude Code and cannot be used for other API requests.")
}
