package proxy

import (
	"errors"
	"io"
	"sync"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
	"golang.org/x/sync/semaphore"
)

// heldBody is a request body in memory and the room it takes. Attempts read it through readers of their own, which hold
// on to the bytes only until they have passed them on: a minutes-long answer must not keep its request in memory. The
// bytes are never pooled, since a transport may go on reading after an attempt is over.
type heldBody struct {
	room  *semaphore.Weighted
	gauge *metrics.Gauge

	mu   sync.Mutex
	size int64 // room taken, 0 after release
	data []byte
}

// newHeldBody takes over size bytes that were acquired from room.
func newHeldBody(room *semaphore.Weighted, size int64, gauge *metrics.Gauge) *heldBody {
	gauge.Add(size)
	return &heldBody{room: room, gauge: gauge, size: size}
}

// fill sets the bytes and returns the room they do not need.
func (b *heldBody) fill(data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = data
	b.shrink(int64(len(data)))
}

// release returns all room. No reader can be opened after it; those already open finish.
func (b *heldBody) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = nil
	b.shrink(0)
}

func (b *heldBody) shrink(size int64) {
	if spare := b.size - size; spare > 0 {
		b.size = size
		b.gauge.Add(-spare) // before the room is anybody else's
		b.room.Release(spare)
	}
}

// open returns a new reader from the first byte on; it has the signature of http.Request.GetBody.
func (b *heldBody) open() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.data == nil {
		return nil, errors.New("the request body has been released")
	}
	return &bodyReader{rest: b.data}, nil
}

// bodyReader reads a held body. Transports may close it while they read, from another goroutine.
type bodyReader struct {
	mu   sync.Mutex
	rest []byte
}

func (r *bodyReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rest) == 0 {
		r.rest = nil
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *bodyReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rest = nil
	return nil
}
