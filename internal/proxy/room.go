package proxy

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
)

// room is the memory that request bodies may take together (contract section 1). A body takes it piece by piece, for bytes
// that came, and gives it back when the response headers arrive.
//
// Bodies that are half read must never wait for each other. So the oldest unfinished upload may take whatever is free, and all
// the other unfinished ones together never have more than size - maxBody: whichever of them becomes the oldest finds room for
// its rest, as soon as the finished ones, which need no more, are gone. A quarter of that share is for small bodies, so that
// large ones whose clients stop sending are in nobody's way.
type room struct {
	size, maxBody int64
	gauge         *metrics.Gauge

	mu         sync.Mutex
	free       int64
	unfinished []*heldBody // in the order of their coming
	unread     int64       // what they have
	waiting    []*heldBody // those that wait for more, in that order
}

const (
	smallBody  = 1 << 20 // the largest body that is not delayed by clients that stop sending
	firstPiece = 4 << 10
	lastPiece  = 256 << 10
)

func newRoom(size, maxBody int64, gauge *metrics.Gauge) *room {
	return &room{size: size, maxBody: maxBody, gauge: gauge, free: size}
}

// enter begins an upload of so many bytes, -1 if that is not known. interrupt ends a read from its client that waits.
func (r *room) enter(length int64, interrupt func()) *heldBody {
	b := &heldBody{room: r, length: length, interrupt: interrupt, granted: make(chan struct{}, 1)}
	b.heard.Store(time.Now().UnixNano())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unfinished = append(r.unfinished, b)
	return b
}

// ask asks for room for the next piece of b: at most as much as has come already, at least a byte, of which the caller must
// know that it has come. It reports whether b.want bytes were taken at once; otherwise await must follow.
func (r *room) ask(b *heldBody) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	b.want = min(max(b.taken, firstPiece), lastPiece, b.rest())
	r.waiting = append(r.waiting, b)
	r.serve()
	return len(b.granted) > 0
}

// await waits until b.want bytes are taken, or ctx ends.
func (r *room) await(ctx context.Context, b *heldBody) error {
	r.mu.Lock()
	small, rest := b.small(), min(b.rest(), smallBody)
	r.mu.Unlock()
	for {
		var impatient <-chan time.Time
		if small {
			impatient = time.After(silencePatience)
		}
		select {
		case <-b.granted:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-impatient:
			r.evict(rest)
		}
	}
}

// serve gives room to those who wait, the longest waiting first. The caller holds mu.
func (r *room) serve() {
	still := r.waiting[:0]
	full := false
	for _, b := range r.waiting {
		if full = full || b.want > r.free; full || !r.may(b) {
			still = append(still, b)
			continue
		}
		r.add(b, b.want)
		b.granted <- struct{}{}
	}
	clear(r.waiting[len(still):])
	r.waiting = still
}

// may reports whether b may have what it wants, if that is free.
func (r *room) may(b *heldBody) bool {
	oldest := r.unfinished[0]
	if b == oldest {
		return true
	}
	share := r.size - r.maxBody
	if !b.small() {
		share -= share / 4
	}
	return r.unread-oldest.taken+b.want <= share
}

func (r *room) add(b *heldBody, n int64) {
	b.taken += n
	r.free -= n
	r.gauge.Add(n)
	if !b.finished {
		r.unread += n
	}
}

// silencePatience is how long a small body waits for room that is taken by uploads whose clients have been silent for as long.
const silencePatience = 500 * time.Millisecond

// evict ends the uploads that have been silent for longest, until they give back so many bytes.
func (r *room) evict(bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	silent := slices.DeleteFunc(slices.Clone(r.unfinished), func(b *heldBody) bool {
		return b.taken == 0 || slices.Contains(r.waiting, b) || time.Since(time.Unix(0, b.heard.Load())) < silencePatience
	})
	slices.SortFunc(silent, func(a, b *heldBody) int { return int(a.heard.Load() - b.heard.Load()) })
	for _, b := range silent {
		if bytes <= 0 {
			return
		}
		bytes -= b.taken
		b.evicted.Store(true)
		b.interrupt()
	}
}

// finish notes that b has come to its end, size bytes in all.
func (r *room) finish(b *heldBody, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leave(b)
	b.finished = true
	r.add(b, size-b.taken)
	r.serve()
}

// release takes back all of b's room.
func (r *room) release(b *heldBody) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leave(b)
	b.finished = true
	r.add(b, -b.taken)
	r.serve()
}

func (r *room) leave(b *heldBody) {
	if b.finished {
		return
	}
	r.unread -= b.taken
	same := func(other *heldBody) bool { return other == b }
	r.unfinished = slices.DeleteFunc(r.unfinished, same)
	r.waiting = slices.DeleteFunc(r.waiting, same)
}

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

	taken, want int64 // under room.mu, as is finished
	finished    bool

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
