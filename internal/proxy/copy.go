package proxy

import (
	"context"
	"io"
	"net/http"
	"sync"
)

// Responses are copied through buffers of two sizes. A stream's events have a few hundred bytes each. A response that arrives faster
// uses a large buffer while it does.
const (
	smallBuffer = 1 << 10
	largeBuffer = 32 << 10
)

var (
	smallBuffers = newBuffers(smallBuffer)
	largeBuffers = newBuffers(largeBuffer)
)

func newBuffers(size int) *sync.Pool {
	return &sync.Pool{New: func() any {
		buf := make([]byte, size)
		return &buf
	}}
}

// copyBody writes each piece of the response's body as soon as it arrives (contract row 3.1). It returns the error that ended the
// body, or nil at its proper end. It panics if the client no longer reads, or when the request's context ends. A body of known
// length is complete with its last byte. If the client closes right then, the answer still counts as complete (contract section 5).
func copyBody(w http.ResponseWriter, x *exchange, res *http.Response) error {
	control := http.NewResponseController(w)
	// A client that has closed its sending side may also stop reading. A write to it would last for Timeout.
	stop := context.AfterFunc(x.request.Context(), func() {
		resetOnClose(x.request) // first, because net/http closes the connection when a write fails
		x.aborted.Store(true)
		control.SetWriteDeadline(past)
	})
	defer stop()
	if res.ContentLength != 0 {
		control.Flush()
	}
	written := int64(0)
	buffers := smallBuffers
	for {
		buf := buffers.Get().(*[]byte)
		n, err := res.Body.Read(*buf)
		if n > 0 {
			if _, err := w.Write((*buf)[:n]); err != nil {
				abort()
			}
			if err != io.EOF && control.Flush() != nil {
				abort()
			}
			written += int64(n)
		}
		buffers.Put(buf)
		switch {
		case err == io.EOF, err != nil && written == res.ContentLength && len(res.Trailer) == 0:
			return nil
		case err != nil:
			return err
		case n < smallBuffer:
			buffers = smallBuffers
		case n == smallBuffer:
			buffers = largeBuffers
		}
	}
}
