package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// upstream answers like the API as far as the check needs it: an OAuth request without the beta flag is refused, and a stream
// stands still between its first and its last event until somebody asks for /release.
type upstream struct {
	mu       sync.Mutex
	released chan struct{}
}

func newUpstream() http.Handler {
	u := &upstream{released: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/messages", u.messages)
	mux.HandleFunc("POST /release", u.release)
	return mux
}

func (u *upstream) messages(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(strings.Join(r.Header.Values("anthropic-beta"), ","), "oauth-2025-04-20") {
		http.Error(w, "the proxy did not add the OAuth beta flag", http.StatusUnauthorized)
		return
	}
	u.mu.Lock()
	released := u.released
	u.mu.Unlock()

	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprintf(w, "%s\n\n", first)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return
	}
	select {
	case <-released:
		fmt.Fprintf(w, "%s\n\n", last)
	case <-r.Context().Done():
	}
}

func (u *upstream) release(w http.ResponseWriter, _ *http.Request) {
	u.mu.Lock()
	close(u.released)
	u.released = make(chan struct{})
	u.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}
