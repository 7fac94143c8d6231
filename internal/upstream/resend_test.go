package upstream

import (
	"net/http"
	"testing"

	"gotest.tools/v3/assert"
)

// Row 2.6: an idempotency key goes upstream, but in a spelling that net/http does not take for leave to repeat.
func TestIdempotencyKeyGrantsNothing(t *testing.T) {
	r := request(t.Context())
	r.Header.Set("Idempotency-Key", "k1")
	r.Header["X-Idempotency-Key"] = []string{"k2", "k3"}
	assert.DeepEqual(t, unrepeatable(r).Header, http.Header{"idempotency-key": {"k1"}, "x-idempotency-key": {"k2", "k3"}})
	assert.Assert(t, unrepeatable(r).GetBody == nil)
	assert.Equal(t, r.Header.Get("Idempotency-Key"), "k1", "the caller's request is left alone")
}
