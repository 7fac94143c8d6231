package upstream

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
)

const (
	// retryPause is the time between two attempts (contract row 2.3).
	retryPause = 100 * time.Millisecond
	// maxResends is how often a request that was not processed is sent again (contract row 2.6).
	maxResends = 5
)

// retry sends a request again, with the same method, headers and body, after a timeout or if the upstream provably did not process it. It
// returns every response and every other error to the caller. A request with a body must have GetBody.
type retry struct {
	next      func(req *http.Request, start time.Time) (*http.Response, error) // makes one attempt, which began at start
	retries   int
	onAttempt func(ctx context.Context, n int, previous *Error)
}

func (t *retry) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	var failed *Error
	sent := NothingSent // over all attempts
	for n := 1; ; n++ {
		if t.onAttempt != nil {
			t.onAttempt(ctx, n, failed)
		}
		start := time.Now()
		for resends := 0; ; resends++ {
			resp, err := t.send(req, start)
			if !errors.As(err, &failed) {
				return resp, err
			}
			if !failed.unprocessed || resends == maxResends {
				break
			}
		}
		if failed.Sent == MayHaveBeenRead {
			sent = MayHaveBeenRead
		}
		if failed.Kind != Timeout || n > t.retries {
			last := *failed
			last.Sent, last.Attempts = sent, n
			return nil, &last
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(retryPause):
		}
	}
}

// send sends the request once, with its whole body. It keeps net/http from repeating a request that has a body.
//
// net/http repeats a request with GetBody after PROTOCOL_ERROR (golang/go#47635), and a request with an Idempotency-Key over HTTP/1.1,
// although the upstream may have read it. So send removes GetBody, and writes Idempotency-Key and
// X-Idempotency-Key in lower case, which net/http does not look for. To the upstream, header names are case-insensitive.
func (t *retry) send(req *http.Request, start time.Time) (*http.Response, error) {
	once := *req
	once.GetBody = nil
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, &Error{Kind: Connection, Sent: NothingSent, Reason: "the request body is gone", Err: err}
		}
		once.Body = body
	}
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, ok := once.Header[name]; ok {
			once.Header = once.Header.Clone()
			delete(once.Header, name)
			once.Header[strings.ToLower(name)] = values
		}
	}
	return t.next(&once, start)
}
