package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"
)

func timedOut() error {
	return &Error{Kind: Timeout, Reason: "no response headers", Limit: 60 * time.Second}
}

// Row 2.3: at most three attempts, 100 ms apart, with identical bytes, each announced.
func TestRetryAfterTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bodies []string
		var times []time.Duration
		var announced []int
		start := time.Now()
		rt := &retry{
			retries: 2,
			next: roundTripper(func(r *http.Request) (*http.Response, error) {
				times = append(times, time.Since(start))
				body, err := io.ReadAll(r.Body)
				assert.NilError(t, err)
				bodies = append(bodies, string(body))
				return nil, timedOut()
			}),
			onAttempt: func(_ context.Context, n int, previous error) {
				announced = append(announced, n)
				assert.Equal(t, previous != nil, n > 1)
			},
		}
		_, err := rt.RoundTrip(request(t.Context()))
		assert.ErrorContains(t, err, "timeout after 60s (3 attempts)")
		assert.DeepEqual(t, bodies, []string{"body", "body", "body"})
		assert.DeepEqual(t, times, []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond})
		assert.DeepEqual(t, announced, []int{1, 2, 3})
	})
}

// Row 2.3: an attempt that is answered, with whatever status, is the last.
func TestRetryStopsAtAResponse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		rt := &retry{retries: 2, next: roundTripper(func(r *http.Request) (*http.Response, error) {
			if n++; n == 1 {
				return nil, timedOut()
			}
			return &http.Response{StatusCode: 529, Body: http.NoBody}, nil
		})}
		resp, err := rt.RoundTrip(request(t.Context()))
		assert.NilError(t, err)
		assert.Equal(t, resp.StatusCode, 529)
		assert.Equal(t, n, 2)
	})
}

// Row 2.3: retries = 0 turns retrying off. Row 2.6: a connection error is never repeated.
func TestNoRetry(t *testing.T) {
	for name, tc := range map[string]struct {
		retries int
		err     error
	}{
		"retries are off":  {0, timedOut()},
		"connection error": {2, &Error{Kind: Connection, Reason: "connection reset"}},
		"client gone":      {2, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			rt := &retry{retries: tc.retries, next: roundTripper(func(r *http.Request) (*http.Response, error) { n++; return nil, tc.err })}
			_, err := rt.RoundTrip(request(t.Context()))
			assert.Equal(t, err, tc.err)
			assert.Equal(t, n, 1)
		})
	}
}

// Row 2.8: a client that leaves during the pause between two attempts prevents the second.
func TestDepartureBetweenAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := errors.New("left")
		ctx, leave := context.WithCancelCause(t.Context())
		n := 0
		rt := &retry{retries: 2, next: roundTripper(func(r *http.Request) (*http.Response, error) {
			n++
			time.AfterFunc(50*time.Millisecond, func() { leave(left) })
			return nil, timedOut()
		})}
		_, err := rt.RoundTrip(request(ctx))
		assert.Equal(t, err, left)
		assert.Equal(t, n, 1)
	})
}
