package proxy

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
)

// room is the memory that request bodies may take together (contract section 1). A body takes it piece by piece, for bytes
// that came, and gives it back when the response headers arrive.
//
// Bodies that are half read must never wait for each other. So the oldest unfinished upload may take whatever is free, and all
// the other unfinished ones together never have more than size - maxBody: whichever of them becomes the oldest finds room for
// its rest, as soon as the finished ones, which need no more, are gone.
//
// Clients that stop sending must be in nobody's way. So a quarter of that share is for small bodies; a small body that has
// waited for half a second ends uploads that have been silent for as long, and a large one does when it has waited for the time
// that ends a silent upload; and after the oldest upload those that were impatient are served first, and then the newest, so that
// it does not matter how many others wait.
type room struct {
	size, maxBody int64
	gauge         *metrics.Gauge

	mu         sync.Mutex
	free       int64
	unfinished []*heldBody // of which something has come, in that order
	unread     int64       // what they have
	evicted    time.Time   // when evict last looked
}

const (
	smallBody  = 1 << 20 // the largest body that is not delayed by clients that stop sending
	firstPiece = 4 << 10
	lastPiece  = 256 << 10

	impatientPiece = 4 << 20 // for an upload that has run out of patience
)

func newRoom(size, maxBody int64, gauge *metrics.Gauge) *room {
	return &room{size: size, maxBody: maxBody, gauge: gauge, free: size}
}

// enter begins an upload of so many bytes, -1 if that is not known. interrupt ends a read from its client that waits.
func (r *room) enter(length int64, interrupt func()) *heldBody {
	return &heldBody{room: r, length: length, interrupt: interrupt, granted: make(chan struct{}, 1)}
}

// ask asks for room for b's next piece, whose first byte must have come: at most as much as came before it, or all of a small body
// that has to wait. It reports whether b.want bytes were taken; if not, await must follow.
func (r *room) ask(b *heldBody) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.want == 0 {
		r.unfinished = append(r.unfinished, b)
	}
	b.want = min(max(b.taken, firstPiece), lastPiece, b.rest())
	if b.impatient {
		b.want = min(impatientPiece, b.rest())
	}
	b.waits = true
	r.serve()
	if !b.waits {
		<-b.granted
		return true
	}
	if b.small() {
		b.want = min(b.rest(), smallBody-b.taken) // to wait once, and not for every piece
	}
	return false
}

// await waits until b.want bytes are taken, or ctx ends. It becomes impatient with silent uploads: soon for a small body, and else
// when it has waited, in all, for as long as a client may be silent.
func (r *room) await(ctx context.Context, b *heldBody, silence time.Duration) error {
	start := time.Now()
	r.mu.Lock()
	patience := silence - b.waited
	if b.length >= 0 && b.small() { // one of unknown length may yet be large
		patience = silencePatience
	}
	r.mu.Unlock()
	defer func() { b.waited += time.Since(start) }()
	for {
		select {
		case <-b.granted:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(patience):
			r.evict(b)
			patience = evictAtMost
		}
	}
}

// serve gives room to those who wait. The caller holds mu.
func (r *room) serve() {
	if b := r.oldest(); b != nil && b.waits {
		if b.want > r.free {
			return // or it would wait for ever
		}
		r.grant(b)
	}
	unserved := false // somebody impatient, for whom what comes free is gathered
	for _, impatient := range []bool{true, false} {
		for _, b := range slices.Backward(r.unfinished) {
			if !b.waits || b.impatient != impatient || unserved && !b.small() {
				continue
			}
			if b.want <= r.free && r.may(b) {
				r.grant(b)
			} else if impatient {
				unserved = true
			}
		}
	}
}

func (r *room) grant(b *heldBody) {
	r.add(b, b.want)
	b.waits = false
	b.heard.Store(time.Now().UnixNano()) // it was not its client that was silent
	b.granted <- struct{}{}
}

// oldest returns the oldest unfinished upload, or nil.
func (r *room) oldest() *heldBody {
	if len(r.unfinished) == 0 {
		return nil
	}
	return r.unfinished[0]
}

// may reports whether b may have what it wants, if that is free.
func (r *room) may(b *heldBody) bool {
	oldest := r.oldest()
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

// evictAtMost is how often evict looks.
const evictAtMost = 100 * time.Millisecond

// evict makes room for b, the small bodies that wait, and those for which it was called before: it ends uploads that have been
// silent, the longest silent first.
func (r *room) evict(b *heldBody) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b.impatient = true
	if time.Since(r.evicted) < evictAtMost {
		return // for all
	}
	r.evicted = time.Now()
	need := int64(0)
	for _, b := range r.unfinished {
		switch {
		case !b.waits:
		case b.small():
			need += min(b.rest(), smallBody)
		case b.impatient:
			need += b.rest()
		}
	}
	silent := slices.DeleteFunc(slices.Clone(r.unfinished), func(b *heldBody) bool {
		return b.waits || time.Since(time.Unix(0, b.heard.Load())) < silencePatience
	})
	slices.SortFunc(silent, func(a, b *heldBody) int { return cmp.Compare(a.heard.Load(), b.heard.Load()) })
	for _, b := range silent {
		if need <= 0 {
			return
		}
		need -= b.taken
		b.evicted.Store(true)
		b.interrupt()
	}
}

// settle ends b's upload if it is under way, and leaves it size bytes: its length, or 0 when it is let go.
func (r *room) settle(b *heldBody, size int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !b.finished {
		r.unread -= b.taken
		r.unfinished = slices.DeleteFunc(r.unfinished, func(other *heldBody) bool { return other == b })
		b.finished, b.waits = true, false
	}
	r.add(b, size-b.taken)
	r.serve()
}
