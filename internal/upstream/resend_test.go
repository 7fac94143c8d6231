package upstream

import (
	"net/http"
	"sync/atomic"
	"testing"

	"gotest.tools/v3/assert"
)

// Row 2.6: what is proved unprocessed may be sent again once; after a PROTOCOL_ERROR, nothing is.
func TestResendGuard(t *testing.T) {
	var resets atomic.Int64
	guard := &resendGuard{protocolResets: &resets, next: roundTripper(func(r *http.Request) (*http.Response, error) {
		_, err := r.GetBody()
		assert.NilError(t, err, "the first resend")
		_, err = r.GetBody()
		assert.ErrorIs(t, err, errNotResendable)
		return nil, nil
	})}
	guard.RoundTrip(request(t.Context()))
	guard.RoundTrip(request(t.Context())) // each attempt anew

	guard.next = roundTripper(func(r *http.Request) (*http.Response, error) {
		resets.Add(1)
		_, err := r.GetBody()
		assert.ErrorIs(t, err, errNotResendable)
		return nil, nil
	})
	guard.RoundTrip(request(t.Context()))
}

// Row 2.6: an idempotency key goes upstream, but in a spelling that net/http does not take for leave to repeat.
func TestIdempotencyKeyGrantsNothing(t *testing.T) {
	r := request(t.Context())
	r.Header.Set("Idempotency-Key", "k1")
	r.Header["X-Idempotency-Key"] = []string{"k2", "k3"}
	guard := &resendGuard{protocolResets: new(atomic.Int64), next: roundTripper(func(r *http.Request) (*http.Response, error) {
		assert.DeepEqual(t, r.Header, http.Header{"idempotency-key": {"k1"}, "x-idempotency-key": {"k2", "k3"}})
		return nil, nil
	})}
	guard.RoundTrip(r)
	assert.Equal(t, r.Header.Get("Idempotency-Key"), "k1", "the caller's request is left alone")
}
