package proxy

import (
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// heldBody is a request body in memory and the room it takes. Attempts read it through readers of their own, which hold on to
// the bytes only until they have passed them on: a minutes-long answer must not keep its request in memory. The bytes are
// never pooled, since a transport may go on reading after an attempt is over.
type heldBody struct {
	room      *room
	length    int64         // as declared, or -1
	interrupt func()        // ends a read from the client that waits
	granted   chan struct{} // what was wanted was taken
	heard     atomic.Int64  // when the last byte came, in Unix nanoseconds
	evicted   atomic.Bool

	taken, want     int64 // under room.mu, as are the next two
	waits, finished bool

	mu     sync.Mutex
	pieces [][]byte // nil after release
}

// small reports whether b is, as far as is known, no larger than smallBody.
func (b *heldBody) small() bool {
	return b.length >= 0 && b.length <= smallBody || b.length < 0 && b.taken+b.want <= smallBody
}

// rest is how much may still come.
func (b *heldBody) rest() int64 {
	if b.length >= 0 {
		return b.length - b.taken
	}
	return b.room.maxBody - b.taken
}

// silent reports whether the client has sent nothing for silencePatience, though it could.
func (b *heldBody) silent() bool {
	return !b.waits && time.Since(time.Unix(0, b.heard.Load())) >= silencePatience
}

// evict ends the upload.
func (b *heldBody) evict() {
	b.evicted.Store(true)
	b.interrupt()
}

// append adds a piece that came.
func (b *heldBody) append(piece []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pieces = append(b.pieces, piece)
}

// finish ends the upload and returns its length. Room that was taken for more than came is given back.
func (b *heldBody) finish() (size int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, piece := range b.pieces {
		size += int64(len(piece))
		if len(piece) < cap(piece) { // the last one, of a body of unknown length
			b.pieces[i] = slices.Clip(slices.Clone(piece))
		}
	}
	b.room.settle(b, size)
	return size
}

// release lets the bytes go and returns their room. No reader can be opened after it; those already open finish.
func (b *heldBody) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pieces = nil
	b.room.settle(b, 0)
}

// open returns a new reader from the first byte on; it has the signature of http.Request.GetBody.
func (b *heldBody) open() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pieces == nil {
		return nil, errors.New("the request body has been released")
	}
	return &bodyReader{rest: slices.Clone(b.pieces)}, nil
}

// bodyReader reads a held body. Transports may close it while they read, from another goroutine.
type bodyReader struct {
	mu   sync.Mutex
	rest [][]byte
}

func (r *bodyReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest[0])
	if r.rest[0] = r.rest[0][n:]; len(r.rest[0]) == 0 {
		r.rest[0] = nil
		r.rest = r.rest[1:]
	}
	return n, nil
}

func (r *bodyReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rest = nil
	return nil
}
