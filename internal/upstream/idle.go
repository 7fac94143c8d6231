package upstream

import (
	"context"
	"io"
	"time"
)

// noContent is the body of an answer that has none (RFC 9110 section 6.4.1). Over HTTP/2, net/http expects one if there is a
// Content-Length.
type noContent struct{ io.Closer }

func (noContent) Read([]byte) (int, error) { return 0, io.EOF }

// guardedBody aborts a response whose upstream falls silent. The timer runs only inside Read, so a client that takes
// long to accept what was read is not mistaken for a silent upstream (contract row 3.3).
type guardedBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration
}

// Read returns ErrIdleTimeout when the upstream sent nothing for the idle timeout. Once the context is over, no end of the
// body is believed, not even a proper one: cancelling closes a TLS connection with an alert, and an upstream may take that as
// a request to finish. Only when the client has left does it not matter.
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
