package upstream

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
)

// sending is one attempt's way through net/http: what has been sent so far, and what may be sent again.
//
// An upstream closes idle connections, and refuses requests before it has looked at them; a request that was not processed
// is sent again, and that is no attempt (contract row 2.6). net/http does it by itself, and more: it sends again after
// PROTOCOL_ERROR (golang/go#47635), and over HTTP/1.1 whatever carries an Idempotency-Key, though the upstream may have read
// it. So it is given bodies that it cannot send again, and send decides. Requests without a body it does send again; got stops
// it before it has written what it should not.
type sending struct {
	next      http.RoundTripper
	ctx       context.Context
	cancel    context.CancelCauseFunc
	connected func() // is called when a connection stands

	again  int         // how often net/http sent again what it had written
	before bool        // something was sent before, on this connection or another
	conn   *conn       // the present one, nil if unknown
	offset int64       // how much had been written on it
	reused bool        // it is not a new one
	http2  bool        // it carries other requests, too
	wrote  atomic.Bool // net/http says that it has written the header section
}

// maxTaken is how many new connections in a row may turn out to take no request: an upstream may be going away, or it may allow
// so few streams that of many requests that connect at once, each finds its connection taken by another.
const maxTaken = 30

// send makes one attempt.
func (s *sending) send(req *http.Request) (*http.Response, error) {
	hasBody := req.Body != nil && req.Body != http.NoBody
	trace := &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			last := s.conn
			repeated := s.got(info)
			if repeated && s.http2 && !hasBody {
				s.stopAgain(req.Method, last == s.conn)
			}
		},
		WroteHeaders: func() { s.wrote.Store(true) },
	}
	if t, ok := s.next.(*transport); ok {
		trace.PutIdleConn = func(error) { t.idle() }
	}
	ctx := httptrace.WithClientTrace(s.ctx, trace)
	for refusals, taken := 0, 0; ; {
		resp, err := s.next.RoundTrip(unrepeatable(req).WithContext(ctx))
		if err == nil || s.ctx.Err() != nil || hasBody && req.GetBody == nil {
			return resp, err
		}
		switch {
		case s.reused && !s.onWire(): // the upstream had closed it
		case says(err, notWritten) && !s.onWire() && taken < maxTaken: // it takes no more, or others were faster on it
			taken++
		case refused(err) && refusals == 0 && hasBody:
			refusals++
			s.wrote.Store(false)
		case refused(err):
			return nil, errRefusedTwice
		default:
			return nil, err
		}
		if req, err = rewound(req); err != nil {
			return nil, err
		}
	}
}

// unrepeatable is the request as net/http cannot send it twice. It looks for the canonical spelling of the two headers only;
// to the upstream names are case-insensitive.
func unrepeatable(req *http.Request) *http.Request {
	once := *req
	once.GetBody = nil
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, ok := once.Header[name]; ok {
			once.Header = once.Header.Clone()
			delete(once.Header, name)
			once.Header[strings.ToLower(name)] = values
		}
	}
	return &once
}

// got notes the connection on which the request is about to be sent. It reports whether any of it was sent before, on
// this connection or another.
func (s *sending) got(info httptrace.GotConnInfo) (repeated bool) {
	repeated = s.onWire()
	s.before = s.before || repeated
	s.wrote.Store(false)
	secured, isTLS := info.Conn.(*tls.Conn)
	s.http2 = isTLS && secured.ConnectionState().NegotiatedProtocol == "h2"
	s.reused = info.Reused
	if s.conn = connOf(info.Conn); s.conn != nil {
		s.conn.awaitGreeting(s.ctx)
		s.offset = s.conn.written.Load()
	}
	if s.ctx.Err() == nil {
		s.connected()
	}
	return repeated
}

// stopAgain ends an attempt in which net/http is about to send again what the upstream has refused twice, or may have read. A
// stream that was refused goes out again on the same connection; on another one it may be after GOAWAY, which is as good, or
// after PROTOCOL_ERROR, and net/http does not say.
func (s *sending) stopAgain(method string, sameConn bool) {
	s.again++
	switch {
	case s.again > 1:
		s.cancel(errRefusedTwice)
	case !sameConn && !idempotent(method):
		s.cancel(errNotRepeated)
	}
}

// idempotent reports whether a request may be sent twice (RFC 9110 section 9.2.2).
func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// onWire reports whether any of the request may have left on the present connection.
func (s *sending) onWire() bool {
	if s.conn != nil && !s.http2 {
		return s.conn.written.Load() > s.offset // for net/http a buffered header section is written
	}
	return s.wrote.Load()
}

func (s *sending) fate() Fate {
	if s.before || s.onWire() {
		return MayHaveBeenRead
	}
	return NothingSent
}
