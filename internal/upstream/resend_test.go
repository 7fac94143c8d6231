package upstream

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"testing"

	"gotest.tools/v3/assert"
)

type h2conn struct{ net.Conn }

func (h2conn) ConnectionState() tls.ConnectionState {
	return tls.ConnectionState{NegotiatedProtocol: "h2"}
}

// Row 2.6: what is proved unprocessed may be sent again once; after a PROTOCOL_ERROR, nothing is.
func TestResendGuard(t *testing.T) {
	var resets atomic.Int64
	send := func(r *http.Request) error { // what http.Transport does each time it sends
		httptrace.ContextClientTrace(r.Context()).GotConn(httptrace.GotConnInfo{Conn: h2conn{}})
		return r.Context().Err()
	}
	guard := &resendGuard{protocolResets: &resets, next: roundTripper(func(r *http.Request) (*http.Response, error) {
		assert.NilError(t, send(r))
		assert.NilError(t, send(r), "the first resend")
		return nil, send(r)
	})}
	for range 2 { // each attempt anew
		_, err := guard.RoundTrip(request(t.Context()))
		assert.ErrorIs(t, err, errNotResendable)
	}
	guard.next = roundTripper(func(r *http.Request) (*http.Response, error) {
		assert.NilError(t, send(r))
		resets.Add(1)
		return nil, send(r)
	})
	_, err := guard.RoundTrip(request(t.Context()))
	assert.ErrorIs(t, err, errNotResendable)
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
