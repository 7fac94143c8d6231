package server

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"gotest.tools/v3/assert"
)

// A body that never comes must not hold /health, /metrics (four scrapes at once) or a connection for ever.
func TestBodyOfOwnPathsThatNeverComes(t *testing.T) {
	for _, head := range []string{"GET /metrics", "GET /health", "POST /health"} {
		t.Run(head, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := newOptions()
				registry := prometheus.NewRegistry()
				registry.MustRegister(collectors.NewGoCollector())
				o.Metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}) // as in cmd
				b := startIn(t, o)
				for range 4 {
					b.connect().write(head + " HTTP/1.1\r\nHost: p\r\nContent-Length: 1\r\n\r\n")
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				resp, _ := b.connect().get("/metrics")
				assert.Check(t, resp.StatusCode == 200, "a scrape after an hour: %d", resp.StatusCode)
				synctest.Wait()
				b.Server.conns.mu.Lock()
				defer b.Server.conns.mu.Unlock()
				assert.Check(t, b.Server.conns.busy == 0, "after an hour %d connections still carry a request", b.Server.conns.busy)
			})
		})
	}
}
