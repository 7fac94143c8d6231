package proxy

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
)

const mib = 1 << 20

// send plays a client that sends so many of the body's bytes and then stops. It reports whether it got room for them all.
func (b *heldBody) send(ctx context.Context, bytes int64) bool {
	b.heard.Store(time.Now().UnixNano())
	for b.has() < bytes {
		if b.evicted.Load() {
			return false
		}
		if !b.room.ask(b) && b.room.await(ctx, b) != nil {
			return false
		}
		b.heard.Store(time.Now().UnixNano())
	}
	return true
}

// has returns how much room b has.
func (b *heldBody) has() int64 {
	b.room.mu.Lock()
	defer b.room.mu.Unlock()
	return b.taken
}

// newUpload enters an upload that ends when it is interrupted.
func newUpload(r *room, length int64) *heldBody {
	var b *heldBody
	b = r.enter(length, func() { go b.release() })
	return b
}

// Section 1: any number of clients that begin an upload and stop delay nobody's small body by more than a second, and the largest
// hardly longer.
func TestStoppedUploadsDelayNobody(t *testing.T) {
	for _, tt := range []struct {
		name          string
		clients       int
		length, sends int64
		evicts        bool
	}{
		{"seven that announced much and sent a little", 7, 10 * mib, 1000, false},
		{"two that sent nearly all of the largest", 2, 32 * mib, 32*mib - 1, true},
		{"sixty-four that sent half", 64, 32 * mib, 16 * mib, true},
		{"a thousand of unknown length", 1000, -1, mib / 2, true},
		{"a thousand small ones", 1000, mib, mib - 1, true},
		{"ten thousand that sent a byte", 10_000, mib, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, leave := context.WithCancel(t.Context())
				r := newRoom(64*mib, 32*mib, new(metrics.Gauge))
				var all []*heldBody
				for range tt.clients {
					b := newUpload(r, tt.length)
					all = append(all, b)
					go b.send(ctx, tt.sends)
				}
				time.Sleep(time.Minute / 4)
				for range 3 {
					start := time.Now()
					small := newUpload(r, mib)
					all = append(all, small)
					assert.Assert(t, small.send(ctx, mib))
					assert.Assert(t, time.Since(start) <= time.Second, "delayed by %v", time.Since(start))
				}
				evicted := 0
				for _, b := range all {
					if b.evicted.Load() {
						evicted++
					}
				}
				assert.Equal(t, evicted > 0, tt.evicts, "%d of the silent uploads were ended", evicted)
				start, large := time.Now(), newUpload(r, 32*mib)
				all = append(all, large)
				assert.Assert(t, large.send(ctx, 32*mib))
				assert.Assert(t, time.Since(start) <= 2*time.Second, "delayed by %v", time.Since(start))
				leave()
				synctest.Wait()
				for _, b := range all {
					b.release()
				}
				assert.Equal(t, r.free, int64(64*mib))
				assert.Equal(t, r.unread, int64(0))
			})
		})
	}
}

// Section 1: half-read bodies that all want more must not wait for each other, and the sum never exceeds the room.
func TestHalfReadBodiesDoNotWaitForEachOther(t *testing.T) {
	for _, sizes := range [][2]int64{{64 * mib, 32 * mib}, {32 * mib, 32 * mib}, {33 * mib, 32 * mib}, {5 * mib, 2 * mib}} {
		synctest.Test(t, func(t *testing.T) {
			gauge := new(metrics.Gauge)
			r := newRoom(sizes[0], sizes[1], gauge)
			random := rand.New(rand.NewPCG(1, 2))
			var done atomic.Int64
			var work sync.WaitGroup
			for range 200 {
				length, seed := 1+random.Int64N(sizes[1]), random.Uint64()
				work.Go(func() {
					random := rand.New(rand.NewPCG(3, seed))
					declared := length
					if random.IntN(3) == 0 {
						declared = -1
					}
					time.Sleep(time.Duration(random.IntN(1000)) * time.Millisecond)
					b := newUpload(r, declared)
					for sent := int64(0); sent < length; sent += 100_000 {
						if !b.send(t.Context(), min(sent+100_000, length)) || gauge.Load() > sizes[0] {
							t.Errorf("%d of %d bytes came, evicted %v; %d bytes are held", sent, length, b.evicted.Load(), gauge.Load())
							return
						}
						time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
					}
					r.settle(b, length)
					time.Sleep(time.Duration(random.IntN(3000)) * time.Millisecond) // the upstream answers
					b.release()
					done.Add(1)
				})
			}
			work.Wait()
			assert.Equal(t, done.Load(), int64(200))
			assert.Equal(t, gauge.Load(), int64(0))
		})
	}
}
