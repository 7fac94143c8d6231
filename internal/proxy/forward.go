package proxy

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/basher83/anthropic-oauth-proxy/internal/header"
	"github.com/basher83/anthropic-oauth-proxy/internal/upstream"
)

// forward sends the request upstream and passes the answer on: httputil.ReverseProxy's steps, without its copies of the
// headers and its extra writes (docs/performance.md).
func (p *proxy) forward(w http.ResponseWriter, r *http.Request) {
	x := exchangeFrom(r.Context())
	early := &informational{w: w, stopped: !r.ProtoAtLeast(1, 1)}
	res, err := p.upstream.RoundTrip(p.rewrite(r).WithContext(early.watch(r.Context())))
	early.stop()
	if err != nil {
		p.fail(w, x, err)
		return
	}
	defer res.Body.Close()
	p.received(x, res)
	r.Header, x.request.Header, res.Request = nil, nil, nil // an answer may take minutes, so free its request's memory

	h := w.Header()
	for name, values := range res.Header {
		h[name] = values
	}
	res.Header = nil
	w.WriteHeader(res.StatusCode)
	x.readErr = copyBody(w, x, res)
	if x.readErr != nil {
		abort()
	}
	removeUnforwarded(res.Trailer)
	if len(res.Trailer) > 0 {
		http.NewResponseController(w).Flush() // else net/http would add a Content-Length
	}
	for name, values := range res.Trailer {
		h[http.TrailerPrefix+name] = values
	}
}

// received records a response. No attempt can follow it, so it releases the request body.
func (p *proxy) received(x *exchange, res *http.Response) {
	if x.body != nil {
		x.body.release()
	}
	x.answered = true
	x.upstreamID = res.Header.Get("Request-Id")
	mediaType, _, _ := strings.Cut(res.Header.Get("Content-Type"), ";")
	x.eventStream = strings.EqualFold(strings.TrimSpace(mediaType), "text/event-stream")
	removeUnforwarded(res.Header)
	if len(res.Trailer) > 0 && x.request.Method != http.MethodHead {
		delete(res.Header, "Content-Length") // HTTP/1.1 has trailers only after a chunked body
	}
	p.metrics.RateLimits(res.Header)
}

// removeUnforwarded removes the headers or trailers that the client must not get. The upstream's x-proxy-request-id goes too: ours is
// set when the header is written.
func removeUnforwarded(h http.Header) {
	header.RemoveHopByHop(h)
	delete(h, "X-Proxy-Request-Id")
}

// fail answers a request to which the upstream gave no response. It writes nothing if the client has left or the connection must be
// aborted.
func (p *proxy) fail(w http.ResponseWriter, x *exchange, err error) {
	var failed *upstream.Error
	if !errors.As(err, &failed) || x.request.Context().Err() != nil {
		abort()
	}
	x.failure = failed
	p.metrics.Failed(string(failed.Kind))
	status := http.StatusBadGateway
	switch failed.Kind {
	case upstream.InvalidRequest:
		status = http.StatusRequestHeaderFieldsTooLarge // the only such error (contract row 2.10)
	case upstream.Timeout:
		status = http.StatusGatewayTimeout
		if failed.Sent == upstream.MayHaveBeenRead { // an SDK's own retries would multiply the attempts and possibly the bill
			w.Header().Set("X-Should-Retry", "false")
		}
	}
	writeError(w, status, x.id, failed.Error())
}

// attempted is upstream.Options.OnAttempt.
func (p *proxy) attempted(ctx context.Context, n int, previous *upstream.Error) {
	x := exchangeFrom(ctx)
	x.attempts = n
	if n == 1 {
		return
	}
	p.metrics.Retries.WithLabelValues(string(previous.Sent)).Inc()
	text := "retry: nothing of the request was sent"
	if previous.Sent == upstream.MayHaveBeenRead {
		text = "retry: the upstream may have run the request already"
	}
	previous.Attempts = n - 1
	p.Logger.Warn(text, "request_id", x.id, "attempt", n, "error", previous.Error())
}
