package upstream

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
)

var errNotResendable = errors.New("the upstream may have read the request, or refused it twice")

// resendGuard restrains what http.Transport sends again on its own. It may do so once per attempt, and only for what
// the protocol proves unprocessed (RFC 9113 section 8.7: REFUSED_STREAM, GOAWAY beyond the last stream; or nothing
// written yet); see contract row 2.6. Left alone, it would also repeat
//   - over HTTP/1.1, any request that carries Idempotency-Key or X-Idempotency-Key, even if the upstream has read it;
//   - over HTTP/2, a stream that the upstream reset with PROTOCOL_ERROR, up to seven times.
//
// Requests without a body are left to the Transport's own judgement: those it repeats are safe methods (RFC 9110
// section 9.2.1).
type resendGuard struct {
	next http.RoundTripper
	// protocolResets counts the streams that an upstream reset with PROTOCOL_ERROR. If it grew while a request was
	// out, that request may be the one; whoever is in doubt is not sent again.
	protocolResets *atomic.Int64
}

func (t *resendGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	r := req.WithContext(req.Context())
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, ok := r.Header[name]; ok {
			// The Transport looks for the canonical spelling only; to the upstream names are case-insensitive.
			r.Header = r.Header.Clone()
			delete(r.Header, name)
			r.Header[strings.ToLower(name)] = values
		}
	}
	if req.GetBody != nil {
		before, used := t.protocolResets.Load(), false
		r.GetBody = func() (io.ReadCloser, error) {
			if used || t.protocolResets.Load() != before {
				return nil, errNotResendable
			}
			used = true
			return req.GetBody()
		}
	}
	return t.next.RoundTrip(r)
}
