package upstream

import (
	"context"
	"io"
	"net/http"
	"time"
)

// attempt limits one attempt by a timer that does not run while bytes flow: first for connecting, then until the response
// headers, then anew for every read of the body. The attempt's context ends when the body is closed, not before: a deadline
// on the context would cut a long answer.
type attempt struct {
	next          http.RoundTripper
	headerTimeout time.Duration
	idleTimeout   time.Duration
}

func (t *attempt) RoundTrip(req *http.Request) (*http.Response, error) {
	parent := req.Context()
	ctx, cancel := context.WithCancelCause(parent)
	start := time.Now()
	limit, first := ErrHeaderTimeout, t.headerTimeout // limit changes only while the timer does not run
	if first > connectTimeout {
		limit, first = errConnectTimeout, connectTimeout
	}
	timer := time.AfterFunc(first, func() { cancel(limit) })
	s := &sending{next: t.next, ctx: ctx, cancel: cancel, connected: func() {
		if timer.Stop() {
			limit = ErrHeaderTimeout
			timer.Reset(t.headerTimeout - time.Since(start))
		}
	}}
	resp, err := s.send(req)
	if !timer.Stop() && err == nil {
		resp.Body.Close() // the headers came as the time ran out: the context is over, so is the body
		err = ErrHeaderTimeout
	}
	if err == nil && (resp.StatusCode < 200 || resp.StatusCode > 999) { // HTTP/2 could carry any, and to write some is a panic
		resp.Body.Close()
		err = errBadStatus
		if resp.StatusCode == http.StatusSwitchingProtocols {
			err = errUnasked101 // Upgrade is never forwarded (contract row 1.4)
		}
	}
	if err != nil {
		cause := context.Cause(ctx)
		cancel(nil)
		switch {
		case parent.Err() != nil:
			return nil, context.Cause(parent)
		case cause != nil: // a limit of ours, or a repetition that we did not let happen
			err = cause
		}
		failed := classify(err, t.headerTimeout)
		failed.Fate = s.fate()
		return nil, failed
	}
	limit = ErrIdleTimeout
	if resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified {
		resp.Body = nothing{resp.Body}
	}
	resp.Body = &guardedBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, timer: timer, limit: t.idleTimeout}
	return resp, nil
}

// nothing is the body of an answer that has none (RFC 9110 section 6.4.1). Over HTTP/2, net/http misses one if there is a
// Content-Length.
type nothing struct{ io.Closer }

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

// guardedBody aborts a response whose upstream falls silent. The timer runs only inside Read, so a client that takes
// long to accept what was read is not mistaken for a silent upstream (contract row 3.3).
type guardedBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

// Read returns ErrIdleTimeout when the upstream sent nothing for the idle timeout. Once the context is over, nothing that
// ends the body is believed, not even a proper end: cancelling closes a TLS connection with an alert, and an upstream may
// take that as a request to finish. Only to a client that has left nothing can be passed on that it might believe.
func (b *guardedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.limit)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if cause := context.Cause(b.ctx); err != nil && cause != nil && !(err == io.EOF && cause == context.Canceled) {
		err = cause
	}
	return n, err
}

// Close frees the connection or the stream, and tells the upstream if the body was not read to its end.
func (b *guardedBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
