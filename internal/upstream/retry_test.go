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

// attempts is f as the attempts of a retry.
func attempts(f func(*http.Request) (*http.Response, error)) func(*http.Request, time.Time) (*http.Response, error) {
	return func(r *http.Request, _ time.Time) (*http.Response, error) { return f(r) }
}

func timedOut() error {
	return &Error{Kind: Timeout, Sent: NothingSent, Reason: "no response headers", Limit: 60 * time.Second, Attempts: 1}
}

// Row 2.8: a client that leaves during the pause between two attempts prevents the second.
func TestDepartureBetweenAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := errors.New("left")
		ctx, leave := context.WithCancelCause(t.Context())
		n := 0
		rt := &retry{retries: 2, next: attempts(func(r *http.Request) (*http.Response, error) {
			n++
			time.AfterFunc(50*time.Millisecond, func() { leave(left) })
			return nil, timedOut()
		})}
		_, err := rt.RoundTrip(request(ctx))
		assert.Equal(t, err, left)
		assert.Equal(t, n, 1)
	})
}

// Rows 2.3 and 2.4: at most three attempts, 100 ms apart, each announced. One that may have been read decides.
func TestSentOfAllAttempts(t *testing.T) {
	for _, tc := range []struct {
		sents []Sent
		want  Sent
	}{
		{[]Sent{NothingSent, NothingSent, NothingSent}, NothingSent},
		{[]Sent{NothingSent, MayHaveBeenRead, NothingSent}, MayHaveBeenRead},
		{[]Sent{MayHaveBeenRead, NothingSent, NothingSent}, MayHaveBeenRead},
		{[]Sent{NothingSent, NothingSent, MayHaveBeenRead}, MayHaveBeenRead},
	} {
		synctest.Test(t, func(t *testing.T) {
			var announced []Sent
			n, start := 0, time.Now()
			rt := &retry{
				retries: 2,
				next: attempts(func(*http.Request) (*http.Response, error) {
					n++
					return nil, &Error{Kind: Timeout, Sent: tc.sents[n-1], Limit: time.Minute}
				}),
				onAttempt: func(_ context.Context, n int, previous *Error) {
					if n > 1 {
						announced = append(announced, previous.Sent)
					}
				},
			}
			_, err := rt.RoundTrip(request(t.Context()))
			assert.Equal(t, failed(t, err).Sent, tc.want)
			assert.ErrorContains(t, err, "timeout after 60s (3 attempts)")
			assert.Equal(t, time.Since(start), 200*time.Millisecond)
			assert.DeepEqual(t, announced, tc.sents[:2])
		})
	}
}

// Row 2.6: a request that was not processed is sent again at once, whole, up to five times, as one attempt.
func TestResend(t *testing.T) {
	for refusals, fails := range map[int]bool{5: false, 1000: true} {
		synctest.Test(t, func(t *testing.T) {
			sent, announced, start := 0, 0, time.Now()
			rt := &retry{
				retries:   2,
				onAttempt: func(context.Context, int, *Error) { announced++ },
				next: attempts(func(r *http.Request) (*http.Response, error) {
					body, err := io.ReadAll(r.Body)
					assert.NilError(t, err)
					assert.Equal(t, string(body), "body")
					if sent++; sent <= refusals {
						return nil, &Error{Kind: Connection, Reason: "the upstream refused the request", unprocessed: true}
					}
					return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
				}),
			}
			_, err := rt.RoundTrip(request(t.Context()))
			assert.Equal(t, err != nil, fails)
			assert.Equal(t, sent, 6)
			assert.Equal(t, announced, 1)
			assert.Equal(t, time.Since(start), time.Duration(0))
		})
	}
}
