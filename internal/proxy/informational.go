package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
)

// informational forwards informational (1xx) responses as they arrive, until it is stopped.
type informational struct {
	w       http.ResponseWriter
	mu      sync.Mutex // an HTTP/1.1 connection's own goroutine calls pass, perhaps after the request has ended
	stopped bool       // for HTTP/1.0 from the start, since it has none (RFC 9110 section 15.2)
}

func (i *informational) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{Got1xxResponse: i.pass})
}

// pass is an httptrace callback. Its error ends the request.
func (i *informational) pass(code int, header textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case code == http.StatusSwitchingProtocols: // over HTTP/2 net/http takes it for informational
		return errors.New("101 over HTTP/2 (RFC 9113 section 8.6)")
	case i.stopped:
		return nil
	}
	h := i.w.Header()
	for name, values := range header {
		h[name] = values
	}
	removeUnforwarded(h)
	i.w.WriteHeader(code)
	clear(h) // net/http would send them again with the final response
	return nil
}

func (i *informational) stop() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stopped = true
}
