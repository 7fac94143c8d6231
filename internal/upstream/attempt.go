package upstream

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// attempt limits one attempt by a timer: first until the response headers, and then for every read of the body. The attempt's
// context ends only when the body is closed, because a deadline on the context would cut a long answer.
type attempt struct {
	next          http.RoundTripper
	headerTimeout time.Duration
	idleTimeout   time.Duration
}

// roundTrip makes an attempt that began at start. Its error is an *Error or the cause of the request context's end.
func (t *attempt) roundTrip(req *http.Request, start time.Time) (*http.Response, error) {
	parent := req.Context()
	ctx, cancel := context.WithCancelCause(parent)
	limit := ErrHeaderTimeout // changed only while the timer is stopped
	timer := time.AfterFunc(t.headerTimeout-time.Since(start), func() { cancel(limit) })
	var sent progress
	resp, err := t.next.RoundTrip(req.WithContext(sent.trace(ctx, cancel)))
	if !timer.Stop() && err == nil {
		resp.Body.Close() // the headers arrived just at the timeout: the context has ended, so the body cannot be read
		err = ErrHeaderTimeout
	}
	if err == nil && (resp.StatusCode < 200 || resp.StatusCode > 999) { // over HTTP/2 any number can arrive; net/http panics when a handler writes some of them
		resp.Body.Close()
		err = errBadStatus
		if resp.StatusCode == http.StatusSwitchingProtocols {
			err = errSwitchedProtocols // Upgrade is never forwarded (contract row 1.4)
		}
	}
	if err != nil {
		cause := context.Cause(ctx)
		cancel(nil)
		switch {
		case parent.Err() != nil:
			return nil, context.Cause(parent)
		case cause != nil:
			err = cause
		}
		return nil, t.failure(err, req, &sent, start)
	}
	limit = ErrIdleTimeout
	if resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified {
		resp.Body = noContent{resp.Body}
	}
	body := resp.Body
	// Over HTTP/2, net/http does not notice the context's end while the request's body waits for the upstream's window.
	stop := context.AfterFunc(ctx, func() { body.Close() })
	resp.Body = &guardedBody{ReadCloser: body, ctx: ctx, cancel: cancel, stop: stop, timer: timer, limit: t.idleTimeout}
	return resp, nil
}

// progress records how far a request has got. net/http calls the trace from several goroutines.
type progress struct {
	connected atomic.Bool // it has a connection
	reused    atomic.Bool // that connection has carried a request before
	wrote     atomic.Bool // its headers were written, perhaps on an earlier connection
	resolving atomic.Bool // the name lookup is running
	securing  atomic.Bool // the TLS handshake is running

	opened atomic.Int32 // how many new connections the request was given
}

// trace follows a request. It also ends one that got GOAWAY on every new connection (contract row 2.6): net/http repeats a request
// without a body for ever, without a pause.
func (s *progress) trace(ctx context.Context, cancel context.CancelCauseFunc) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) {
			if s.opened.Load() > maxResends {
				cancel(errGoesAway)
			}
		},
		DNSStart:          func(httptrace.DNSStartInfo) { s.resolving.Store(true) },
		DNSDone:           func(httptrace.DNSDoneInfo) { s.resolving.Store(false) },
		TLSHandshakeStart: func() { s.securing.Store(true) },
		TLSHandshakeDone:  func(tls.ConnectionState, error) { s.securing.Store(false) },
		GotConn: func(info httptrace.GotConnInfo) {
			s.connected.Store(true)
			s.reused.Store(info.Reused)
			if !info.Reused {
				s.opened.Add(1)
			}
		},
		WroteHeaders: func() { s.wrote.Store(true) },
	})
}

// failure turns an attempt's error into an *Error (contract rows 2.1 to 2.6).
func (t *attempt) failure(err error, req *http.Request, sent *progress, start time.Time) *Error {
	failed := classify(err)
	if headersRejected.MatchString(err.Error()) && headerBytes(req.Header) > 4<<10 { // else another request on the connection caused it
		failed.Kind, failed.Reason = InvalidRequest, reasonHeaders
	}
	failed.Sent = NothingSent
	if sent.wrote.Load() {
		failed.Sent = MayHaveBeenRead
	}
	if notProcessed(err, sent.reused.Load()) {
		failed.Sent, failed.unprocessed = NothingSent, true
	}
	if refused(err) {
		failed.Reason = reasonRefused
		failed.unprocessed = req.ContentLength > 0 // net/http has repeated one without a body already
	}
	switch {
	case failed.Kind != Timeout:
	case err == ErrHeaderTimeout:
		failed.Limit = t.headerTimeout
		switch {
		case sent.connected.Load():
			failed.Reason = reasonNoHeaders
		case sent.resolving.Load():
			failed.Reason = reasonResolve
		case sent.securing.Load():
			failed.Reason = reasonHandshake
		default:
			failed.Reason = reasonConnect
		}
	case failed.Limit == 0: // the resolver has its own limits
		failed.Limit = time.Since(start).Round(time.Second)
	}
	return failed
}

func headerBytes(h http.Header) (n int) {
	for name, values := range h {
		for _, value := range values {
			n += len(name) + len(value)
		}
	}
	return n
}
