package proxy

import (
	"net/http"

	"golang.org/x/sync/semaphore"
)

// limit proxies at most MaxConnections requests at once, each until its last byte. The others wait in the order of their
// coming and leave the queue with their client. It comes after hold, since net/http notices a client's departure only
// once the request body has been read.
func (p *proxy) limit(next http.Handler) http.Handler {
	slots := semaphore.NewWeighted(int64(p.MaxConnections))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !slots.TryAcquire(1) {
			p.metrics.Queued.Add(1)
			err := slots.Acquire(r.Context(), 1)
			p.metrics.Queued.Add(-1)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
		}
		p.metrics.InFlight.Add(1)
		defer slots.Release(1)
		defer p.metrics.InFlight.Add(-1)
		next.ServeHTTP(w, r)
	})
}
