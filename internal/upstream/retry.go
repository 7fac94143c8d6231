package upstream

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// retryPause lies between two attempts (contract row 2.3).
const retryPause = 100 * time.Millisecond

// retry repeats a request whose attempt timed out, with the same method, headers and body bytes, and nothing else: any
// response and any other error is the caller's. A request with a body must have GetBody.
type retry struct {
	next      http.RoundTripper
	retries   int
	onAttempt func(ctx context.Context, n int, previous error)
}

func (t *retry) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	var previous error
	for n := 1; ; n++ {
		r := req
		if n > 1 && req.GetBody != nil {
			body, err := req.GetBody()
			if err != nil {
				return nil, &Error{Kind: Connection, Reason: "the request body is gone", Attempts: n - 1, Err: err}
			}
			r = req.WithContext(ctx)
			r.Body = body
		}
		if t.onAttempt != nil {
			t.onAttempt(ctx, n, previous)
		}
		resp, err := t.next.RoundTrip(r)
		var failed *Error
		if !errors.As(err, &failed) {
			return resp, err
		}
		failed.Attempts = n
		if failed.Kind != Timeout || n > t.retries {
			return nil, failed
		}
		previous = failed
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(retryPause):
		}
	}
}
