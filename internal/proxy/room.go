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
// Bodies that are half read must never wait for each other. So one unfinished upload, the head, may take whatever is free, and
// all the others together never have more than size - maxBody: whichever of them becomes the head finds room for its rest, as soon
// as the finished ones, which need no more, are gone. A quarter of that share is for small bodies. The head is the oldest that
// waits.
//
// Clients that stop sending must be in nobody's way. So while others wait, the head may not be silent for long, and the newest is
// the head after one that was: it does not matter how many others wait. And a small body that has waited for half a second ends
// whatever upload has been silent for as long.
type room struct {
	size, maxBody int64
	gauge         *metrics.Gauge

	mu         sync.Mutex
	free       int64
	unfinished []*heldBody // of which something has come, in that order
	unread     int64       // what they have
	head       *heldBody   // nil if none waits
	newest     bool        // will be the next head
	looked     time.Time   // when evict last looked
}

const (
	smallBody  = 1 << 20 // the largest body that is not delayed by clients that stop sending
	firstPiece = 4 << 10
	lastPiece  = 256 << 10

	// How long an upload may be silent while others wait for its room, and a small body waits before it ends one.
	silencePatience = 500 * time.Millisecond
	lookAgain       = 100 * time.Millisecond
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

// await waits until b.want bytes are taken, or ctx ends.
func (r *room) await(ctx context.Context, b *heldBody) error {
	patience := silencePatience
	for {
		select {
		case <-b.granted:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(patience):
			r.evict()
			patience = lookAgain
		}
	}
}

// serve gives room to those who wait. The caller holds mu.
func (r *room) serve() {
	for {
		if r.head == nil {
			r.head = r.next()
		}
		if r.head == nil || !r.head.waits {
			break
		}
		if r.head.want > r.free {
			return // or it would wait for ever
		}
		r.grant(r.head)
	}
	for _, b := range r.unfinished {
		if b.waits && b.want <= r.free && r.may(b) {
			r.grant(b)
		}
	}
}

// next returns who becomes the head: the oldest that waits, or the newest.
func (r *room) next() *heldBody {
	var next *heldBody
	for _, b := range r.unfinished {
		if b.waits {
			if next = b; !r.newest {
				break
			}
		}
	}
	r.newest = false
	return next
}

func (r *room) grant(b *heldBody) {
	r.add(b, b.want)
	b.waits = false
	b.heard.Store(time.Now().UnixNano()) // it was not its client that was silent
	b.granted <- struct{}{}
}

// may reports whether b, which is not the head, may have what it wants, if that is free.
func (r *room) may(b *heldBody) bool {
	share, others := r.size-r.maxBody, r.unread
	if !b.small() {
		share -= share / 4
	}
	if r.head != nil {
		others -= r.head.taken
	}
	return others+b.want <= share
}

func (r *room) add(b *heldBody, n int64) {
	b.taken += n
	r.free -= n
	r.gauge.Add(n)
	if !b.finished {
		r.unread += n
	}
}

// evict makes room for those who wait: it ends the head if that is silent, and for small bodies as many other silent uploads as
// are needed, the longest silent first.
func (r *room) evict() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.looked) < lookAgain {
		return // for all
	}
	r.looked = time.Now()
	if r.head != nil && r.head.silent() {
		r.newest = true
		r.head.evict()
	}
	need := int64(0)
	for _, b := range r.unfinished {
		if b.waits && b.small() && b.length >= 0 { // one of unknown length may yet be large
			need += b.rest()
		}
	}
	silent := slices.DeleteFunc(slices.Clone(r.unfinished), func(b *heldBody) bool { return !b.silent() })
	slices.SortFunc(silent, func(a, b *heldBody) int { return cmp.Compare(a.heard.Load(), b.heard.Load()) })
	for _, b := range silent {
		if need <= 0 {
			return
		}
		need -= b.taken
		b.evict()
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
		if r.head == b {
			r.head = nil
		}
	}
	r.add(b, size-b.taken)
	r.serve()
}
