package proxy

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
)

// pieceSize is what a body's memory grows by. The collector keeps up with small steps; whole bodies at once take it far past GOMEMLIMIT.
const pieceSize = 256 << 10

// requestBody is a body in memory. Attempts read it through readers of their own. The bytes are never pooled, since a transport may
// go on reading after an attempt is over.
type requestBody struct {
	pieces   net.Buffers // nil after release
	reserved *reservation
}

// release frees the bytes and their reservation. Open readers can finish; no new one can be opened.
func (b *requestBody) release() {
	if b.reserved != nil {
		b.reserved.shrink(0)
	}
	b.pieces = nil
}

// open returns a new reader from the first byte on; it has the signature of http.Request.GetBody.
func (b *requestBody) open() (io.ReadCloser, error) {
	if b.pieces == nil {
		return nil, errors.New("the request body has been released")
	}
	return &bodyReader{rest: slices.Clone(b.pieces)}, nil
}

// bodyReader reads a body and forgets it at its end: net/http keeps the reader as long as the answer takes, and a minutes-long
// answer must not keep its request in memory. Transports may close it while they read, from another goroutine.
type bodyReader struct {
	mu    sync.Mutex
	rest  net.Buffers
	begun bool // it has been read from
	cut   bool // it was closed before its end
}

func (r *bodyReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cut {
		return 0, io.ErrClosedPipe // io.EOF would pass for the end of a shorter body
	}
	r.begun = true
	return r.rest.Read(p) // it releases each piece that it has read
}

// Close ends reading that has begun. net/http closes a body that it has not read and then uses it for another connection, if an HTTP/2
// connection turns out to take no more requests; such a body stays whole.
func (r *bodyReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.begun && len(r.rest) > 0 {
		r.rest, r.cut = nil, true
	}
	return nil
}
