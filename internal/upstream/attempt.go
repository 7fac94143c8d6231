package upstream

import (
	"context"
	"io"
	"net/http"
	"time"
)

// attempt limits one attempt by two timers, neither of which runs while bytes flow: HeaderTimeout from the start to the
// response headers, then IdleTimeout anew for every read of the body. The attempt's context ends when the body is
// closed, not before: a deadline on the context would cut a long answer.
type attempt struct {
	next          http.RoundTripper
	headerTimeout time.Duration
	idleTimeout   time.Duration
}

func (t *attempt) RoundTrip(req *http.Request) (*http.Response, error) {
	parent := req.Context()
	ctx, cancel := context.WithCancelCause(parent)
	limit := ErrHeaderTimeout // changed only while the timer does not run
	timer := time.AfterFunc(t.headerTimeout, func() { cancel(limit) })
	resp, err := t.next.RoundTrip(req.WithContext(ctx))
	if !timer.Stop() && err == nil {
		resp.Body.Close() // the headers came as the time ran out: the context is over, so is the body
		err = ErrHeaderTimeout
	}
	if err == nil && resp.StatusCode < 200 {
		resp.Body.Close()
		err = errBadStatus
		if resp.StatusCode == http.StatusSwitchingProtocols {
			err = errUnasked101 // Upgrade is never forwarded (contract row 1.4)
		}
	}
	if err != nil {
		timedOut := context.Cause(ctx) == ErrHeaderTimeout
		cancel(nil)
		if parent.Err() != nil {
			return nil, context.Cause(parent)
		}
		if timedOut {
			err = ErrHeaderTimeout
		}
		return nil, classify(err, t.headerTimeout)
	}
	limit = ErrIdleTimeout
	resp.Body = &guardedBody{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, timer: timer, limit: t.idleTimeout}
	return resp, nil
}

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
// take that as a request to finish.
func (b *guardedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.limit)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

// Buffered returns how many bytes a Read would return at once, as far as is known.
func (b *guardedBody) Buffered() int {
	if body, ok := b.ReadCloser.(interface{ Buffered() int }); ok {
		return body.Buffered()
	}
	return 0
}

// Close frees the connection or the stream, and tells the upstream if the body was not read to its end.
func (b *guardedBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
