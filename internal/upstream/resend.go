package upstream

import (
	"net/http"
	"strings"
)

// resendGuard keeps http.Transport from sending a request again that the upstream may have read (contract row 2.6). Over
// HTTP/1.1 it does so with any that carries Idempotency-Key or X-Idempotency-Key, if the connection ends before the answer.
// What remains is a GET, HEAD or OPTIONS on a reused connection that turns out to be closed: safe methods (RFC 9110
// section 9.2.1) are sent again.
type resendGuard struct{ next http.RoundTripper }

func (t *resendGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, ok := req.Header[name]; ok {
			// http.Transport looks for the canonical spelling only; to the upstream names are case-insensitive.
			req = req.WithContext(req.Context())
			req.Header = req.Header.Clone()
			delete(req.Header, name)
			req.Header[strings.ToLower(name)] = values
		}
	}
	return t.next.RoundTrip(req)
}
