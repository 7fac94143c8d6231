package proxy

import (
	"context"

	"golang.org/x/sync/semaphore"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
)

// budget is the memory that request bodies may take together (contract section 1). It has two lanes, each with its own queue:
// a quarter is for small bodies, the rest for large ones. So a large body never delays a small one.
//
// A body of unknown length begins as a small one. If it turns out larger, it keeps that reservation while it waits for the large
// lane. Such bodies may have at most three quarters of the small lane, so they cannot block it for the others.
type budget struct {
	maxBody   int64
	smallBody int64 // the largest body that is small

	small, large, unsized *semaphore.Weighted
	reserved, queued      *metrics.Gauge
}

// smallBody is the largest body that large ones never delay.
const smallBody = 1 << 20

// newBudget splits size bytes between the lanes. The large lane has room for at least one body of maxBody bytes.
func newBudget(size, maxBody int64, m *metrics.Metrics) *budget {
	quarter := max(size/4, 1) // a chunked body needs room for its first byte
	b := &budget{maxBody: maxBody, smallBody: min(smallBody, quarter, maxBody), reserved: &m.HeldBytes, queued: &m.Queued}
	b.small = semaphore.NewWeighted(quarter)
	b.large = semaphore.NewWeighted(max(size-quarter, maxBody))
	b.unsized = semaphore.NewWeighted(max(quarter/4*3, b.smallBody))
	return b
}

// reserve takes what a body needs: its length, or that of a small body if the length is not known (-1). It waits in order, until
// ctx ends. A small body may also use the large lane if that has room at once.
func (b *budget) reserve(ctx context.Context, length int64) (*reservation, error) {
	r := &reservation{budget: b}
	switch {
	case length < 0:
		return r, r.take(ctx, b.smallBody, b.unsized, b.small)
	case length > b.smallBody:
		return r, r.take(ctx, length, b.large)
	case r.tryTake(length, b.small), r.tryTake(length, b.large):
		return r, nil
	}
	return r, r.take(ctx, length, b.small)
}

// reservation is what one body has of the budget. It belongs to the handler's goroutine.
type reservation struct {
	budget *budget
	lanes  []*semaphore.Weighted
	size   int64 // bytes, taken from each of the lanes
}

// grow replaces the reservation of a body of unknown length by one for the largest body.
func (r *reservation) grow(ctx context.Context) error {
	larger := reservation{budget: r.budget}
	if err := larger.take(ctx, r.budget.maxBody, r.budget.large); err != nil {
		return err
	}
	r.shrink(0)
	*r = larger
	return nil
}

// shrink gives back all but size bytes.
func (r *reservation) shrink(size int64) {
	for _, lane := range r.lanes {
		lane.Release(r.size - size)
	}
	r.budget.reserved.Add(size - r.size)
	r.size = size
}

func (r *reservation) tryTake(size int64, lane *semaphore.Weighted) bool {
	if !lane.TryAcquire(size) {
		return false
	}
	r.lanes, r.size = []*semaphore.Weighted{lane}, size
	r.budget.reserved.Add(size)
	return true
}

// take takes size bytes of every lane, and waits for them until ctx ends.
func (r *reservation) take(ctx context.Context, size int64, lanes ...*semaphore.Weighted) error {
	for i, lane := range lanes {
		if err := acquire(ctx, lane, size, r.budget.queued); err != nil {
			for _, taken := range lanes[:i] {
				taken.Release(size)
			}
			return err
		}
	}
	r.lanes, r.size = lanes, size
	r.budget.reserved.Add(size)
	return nil
}

// acquire acquires n of s and counts who has to wait for it.
func acquire(ctx context.Context, s *semaphore.Weighted, n int64, queued *metrics.Gauge) error {
	if s.TryAcquire(n) {
		return nil
	}
	queued.Add(1)
	defer queued.Add(-1)
	return s.Acquire(ctx, n)
}
