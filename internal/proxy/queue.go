package proxy

import (
	"net/http"

	"golang.org/x/sync/semaphore"
)

// queue proxies at most MaxConnections requests at once. Each has its slot until its last byte. The others wait in order of arrival.
// If a client leaves, its request leaves the queue. queue comes after body, because net/http notices that a client has left only
// after the request body has been read.
func (p *proxy) queue(next http.Handler) http.Handler {
	slots := semaphore.NewWeighted(int64(p.MaxConnections))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if acquire(r.Context(), slots, 1, &p.metrics.Queued) != nil {
			abort()
		}
		p.metrics.InFlight.Add(1)
		defer slots.Release(1)
		defer p.metrics.InFlight.Add(-1)
		next.ServeHTTP(w, r)
	})
}
