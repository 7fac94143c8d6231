package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
)

var errNotResendable = errors.New("the upstream may have read the request, or refused it twice")

// resendGuard restrains what http.Transport sends again on its own to what the protocol proves unprocessed (contract row
// 2.6). Over HTTP/2 that is REFUSED_STREAM and GOAWAY beyond the last stream (RFC 9113 section 8.7), and once is enough;
// the Transport would try seven times, and also repeat a stream that the upstream reset with PROTOCOL_ERROR. Over HTTP/1.1
// it is a request of which nothing was written; the Transport would also repeat any that carries Idempotency-Key or
// X-Idempotency-Key, even if the upstream has read it.
//
// What remains is a GET, HEAD or OPTIONS on a reused HTTP/1.1 connection that turns out to be closed: safe methods (RFC
// 9110 section 9.2.1) are sent again.
type resendGuard struct {
	next http.RoundTripper
	// protocolResets counts the streams that an upstream reset with PROTOCOL_ERROR. If it grew while a request was
	// out, that request may be the one; whoever is in doubt is not sent again.
	protocolResets *atomic.Int64
}

func (t *resendGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	before, sent := t.protocolResets.Load(), 0
	ctx, cancel := context.WithCancelCause(req.Context()) // ends with the attempt's context
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { // the Transport is about to send, and looks at the context before it does
			if !isHTTP2(info.Conn) {
				return
			}
			if sent++; sent > 2 || sent == 2 && t.protocolResets.Load() != before {
				cancel(errNotResendable)
			}
		},
	})
	r := req.WithContext(ctx)
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, ok := r.Header[name]; ok {
			// The Transport looks for the canonical spelling only; to the upstream names are case-insensitive.
			r.Header = r.Header.Clone()
			delete(r.Header, name)
			r.Header[strings.ToLower(name)] = values
		}
	}
	resp, err := t.next.RoundTrip(r)
	if err != nil && context.Cause(ctx) == errNotResendable {
		err = errNotResendable
	}
	return resp, err
}

func isHTTP2(conn net.Conn) bool {
	c, ok := conn.(interface{ ConnectionState() tls.ConnectionState })
	return ok && c.ConnectionState().NegotiatedProtocol == "h2"
}
