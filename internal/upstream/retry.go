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
	onAttempt func(ctx context.Context, n int, previous *Error)
}

func (t *retry) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	var previous *Error
	fate := NothingSent // of all attempts together
	for n := 1; ; n++ {
		if n > 1 {
			var err error
			if req, err = rewound(req); err != nil {
				return nil, &Error{Kind: Connection, Fate: fate, Reason: "the request body is gone", Attempts: n - 1, Err: err}
			}
		}
		if t.onAttempt != nil {
			t.onAttempt(ctx, n, previous)
		}
		resp, err := t.next.RoundTrip(req)
		if !errors.As(err, &previous) {
			return resp, err
		}
		if previous.Fate == MayHaveBeenRead {
			fate = MayHaveBeenRead
		}
		if previous.Kind != Timeout || n > t.retries {
			last := *previous
			last.Fate, last.Attempts = fate, n
			return nil, &last
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(retryPause):
		}
	}
}

// rewound returns the request with its body from the first byte on.
func rewound(req *http.Request) (*http.Request, error) {
	if req.GetBody == nil {
		return req, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	again := *req
	again.Body = body
	return &again, nil
}
