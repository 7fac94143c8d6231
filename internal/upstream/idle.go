package upstream

import (
	"context"
	"io"
	"time"
)

// noContent is the body of an answer without one (RFC 9110 section 6.4.1). Over HTTP/2, net/http expects a body if there is a
// Content-Length.
type noContent struct{ io.Closer }

func (noContent) Read([]byte) (int, error) { return 0, io.EOF }

// guardedBody aborts a response if the upstream is silent for too long. The timer runs only inside Read, so a client that reads
// slowly is not mistaken for a silent upstream (contract row 3.3).
type guardedBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	stop   func() bool // stops the context's end from closing ReadCloser; false if it has done so
	timer  *time.Timer
	limit  time.Duration
}

// Read returns ErrIdleTimeout if the upstream sent nothing for the idle timeout. After the context has ended, io.EOF may be the
// upstream's reaction to our cancelling. So Read then returns the context's cause, unless the client has left.
func (b *guardedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.limit)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if cause := context.Cause(b.ctx); err != nil && cause != nil && !(err == io.EOF && cause == context.Canceled) {
		err = cause
	}
	return n, err
}

// Close frees the connection or the stream. If the body was not read to its end, it also cancels the request at the upstream.
func (b *guardedBody) Close() error {
	b.timer.Stop()
	var err error
	if b.stop() { // else it is closed already: a second Close would return its unread bytes to the connection's window again
		err = b.ReadCloser.Close()
	}
	b.cancel(nil)
	return err
}
