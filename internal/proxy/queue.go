package proxy

import (
	"net/http"

	"golang.org/x/sync/semaphore"
)

// queue proxies at most MaxConnections requests at once, each until its last byte. The others wait in the order of their
// coming and leave the queue with their client. It comes after body, since net/http notices a client's departure only
// once the request body has been read.
func (p *proxy) queue(next http.Handler) http.Handler {
	slots := semaphore.NewWeighted(int64(p.MaxConnections))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if acquire(r.Context(), slots, 1, &p.metrics.Queued) != nil {
			panic(http.ErrAbortHandler)
		}
		p.metrics.InFlight.Add(1)
		defer slots.Release(1)
		defer p.metrics.InFlight.Add(-1)
		next.ServeHTTP(w, r)
	})
}
