package main

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Contract section 5: the program adds its settings and the metrics of Go and the process to internal/metrics. /metrics has no secrets.
func TestMetrics(t *testing.T) {
	t.Parallel()
	p := start(t, newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Anthropic-Ratelimit-Unified-5h-Utilization", "0.25")
		io.WriteString(w, "12345")
	}), "max_body_bytes = 10")
	do(t, "POST", p.url("/secret-path?secret-query"), "1234567")
	do(t, "BREW", p.url("/secret-path"), "")
	do(t, "POST", p.url("/"), "more than ten bytes")
	p.pollMetric(`proxy_streams_total{outcome="complete"} 2`) // counted after the last byte
	resp, text := get(t, p.url("/metrics"))
	assert.Check(t, strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain; version=0.0.4"), resp.Header.Get("Content-Type"))

	for _, want := range []string{
		`proxy_requests_total{method="POST",status="200"} 1`,
		`proxy_requests_total{method="POST",status="413"} 1`,
		`proxy_requests_total{method="OTHER",status="200"} 1`,
		`proxy_upstream_errors_total{error_type="invalid_request"} 1`,
		`proxy_stream_duration_seconds_bucket{le="3600"} 2`,
		`proxy_max_connections 1000`,
		`proxy_max_buffered_bytes 6.7108864e+07`,
		`# TYPE proxy_build_info gauge`,
		`# TYPE go_goroutines gauge`,
		`# TYPE process_resident_memory_bytes gauge`,
	} {
		assert.Check(t, strings.Contains("\n"+text, "\n"+want), "missing: %s", want)
	}
	var bounds []string
	for _, bucket := range regexp.MustCompile(`_request_duration_seconds_bucket{status="200",le="(.+)"}`).FindAllStringSubmatch(text, -1) {
		bounds = append(bounds, bucket[1])
	}
	assert.Equal(t, strings.Join(bounds, " "), "0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 30 60 120 300 600 +Inf")
	for _, unwanted := range []string{"tailnet", "tailscale", "secret", "BREW"} {
		assert.Check(t, !strings.Contains(text, unwanted), "/metrics contains %s", unwanted)
	}
}
