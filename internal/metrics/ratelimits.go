package metrics

import (
	"math"
	"net/http"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	utilizationDesc = prometheus.NewDesc("proxy_ratelimit_utilization_ratio",
		"Share of the Max plan's usage window that is used up, 1 being all, as the upstream last said.", []string{"window"}, nil)
	resetDesc = prometheus.NewDesc("proxy_ratelimit_reset_timestamp_seconds",
		"When the usage window resets (Unix time), as the upstream last said.", []string{"window"}, nil)
)

// windows are the Max plan's usage windows and the response headers that describe them.
var windows = [...]struct{ name, utilization, reset string }{
	{"5h", "Anthropic-Ratelimit-Unified-5h-Utilization", "Anthropic-Ratelimit-Unified-5h-Reset"},
	{"7d", "Anthropic-Ratelimit-Unified-7d-Utilization", "Anthropic-Ratelimit-Unified-7d-Reset"},
}

// rateLimits stores the last values of the upstream's anthropic-ratelimit-unified-* response headers. A gauge does not exist
// until its header has arrived once. It stores nothing of a request.
type rateLimits struct {
	mu   sync.Mutex
	seen [len(windows)]struct{ utilization, reset *float64 }
}

// RateLimits records the usage windows in a response's headers, if it has any.
func (m *Metrics) RateLimits(h http.Header) {
	for i, window := range windows {
		utilization := number(h.Get(window.utilization))
		reset := number(h.Get(window.reset))
		if utilization == nil && reset == nil {
			continue
		}
		m.limits.mu.Lock()
		if utilization != nil {
			m.limits.seen[i].utilization = utilization
		}
		if reset != nil {
			m.limits.seen[i].reset = reset
		}
		m.limits.mu.Unlock()
	}
}

// number returns the finite, non-negative number in s, or nil.
func number(s string) *float64 {
	if s == "" {
		return nil
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsInf(n, 0) || math.IsNaN(n) || n < 0 {
		return nil
	}
	return &n
}

// Describe implements prometheus.Collector.
func (l *rateLimits) Describe(ch chan<- *prometheus.Desc) {
	ch <- utilizationDesc
	ch <- resetDesc
}

// Collect implements prometheus.Collector.
func (l *rateLimits) Collect(ch chan<- prometheus.Metric) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, window := range windows {
		if u := l.seen[i].utilization; u != nil {
			ch <- prometheus.MustNewConstMetric(utilizationDesc, prometheus.GaugeValue, *u, window.name)
		}
		if r := l.seen[i].reset; r != nil {
			ch <- prometheus.MustNewConstMetric(resetDesc, prometheus.GaugeValue, *r, window.name)
		}
	}
}
