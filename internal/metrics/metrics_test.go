package metrics_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/internal/metrics"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// Section 5: the counts of requests and durations agree for every status, from the start.
func TestRequestsAndDurationsAgree(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := metrics.New(reg, "v", metrics.Limits{})
	statuses := func() map[string]float64 {
		families, err := reg.Gather()
		assert.NilError(t, err)
		counts := map[string]map[string]float64{"proxy_requests_total": {}, "proxy_request_duration_seconds": {}}
		for _, f := range families {
			for _, sample := range f.GetMetric() {
				for _, label := range sample.GetLabel() {
					if label.GetName() == "status" {
						counts[f.GetName()][label.GetValue()] += sample.GetCounter().GetValue() + float64(sample.GetHistogram().GetSampleCount())
					}
				}
			}
		}
		assert.DeepEqual(t, counts["proxy_requests_total"], counts["proxy_request_duration_seconds"])
		return counts["proxy_requests_total"]
	}
	assert.DeepEqual(t, statuses(), map[string]float64{"200": 0, "400": 0, "401": 0, "403": 0})
	for _, status := range []int{200, 401, 502} {
		m.Headers("POST", status, time.Second)
		m.Headers("GET", status, time.Second)
	}
	assert.DeepEqual(t, statuses(), map[string]float64{"200": 2, "400": 0, "401": 2, "403": 0, "502": 2})
}

// Section 5: names are exact, and every series with a bounded label exists from the start.
func TestNames(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := metrics.New(reg, "v", metrics.Limits{})
	m.Headers("GET", 200, time.Second)
	m.RateLimits(http.Header{"Anthropic-Ratelimit-Unified-5h-Utilization": {"0.5"}, "Anthropic-Ratelimit-Unified-5h-Reset": {"1700000000"}})
	families, err := reg.Gather()
	assert.NilError(t, err)
	var names []string
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "proxy_") {
			names = append(names, f.GetName())
		}
	}
	slices.Sort(names)
	assert.DeepEqual(t, names, []string{
		"proxy_build_info", "proxy_event_stream_duration_seconds", "proxy_event_streams_total", "proxy_held_body_bytes",
		"proxy_max_buffered_bytes", "proxy_max_connections", "proxy_ratelimit_reset_timestamp_seconds", "proxy_ratelimit_utilization_ratio",
		"proxy_request_bytes_total", "proxy_request_duration_seconds", "proxy_requests_in_flight", "proxy_requests_queued",
		"proxy_requests_total", "proxy_response_bytes_total", "proxy_stream_duration_seconds", "proxy_streams_total",
		"proxy_time_to_first_byte_seconds", "proxy_upstream_errors_total", "proxy_upstream_retries_total",
	})
	for name, n := range map[string]int{"proxy_streams_total": 5, "proxy_event_streams_total": 5, "proxy_upstream_retries_total": 2, "proxy_upstream_errors_total": 3} {
		got, err := testutil.GatherAndCount(reg, name)
		assert.NilError(t, err)
		assert.Equal(t, got, n, name)
	}
	problems, err := testutil.GatherAndLint(reg)
	assert.NilError(t, err)
	assert.Assert(t, is.Len(problems, 0))
}

// The usage windows are absent until a response has them, keep their last values, and ignore values that are not numbers.
func TestRateLimits(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := metrics.New(reg, "v", metrics.Limits{})
	count := func() int {
		n, err := testutil.GatherAndCount(reg, "proxy_ratelimit_utilization_ratio", "proxy_ratelimit_reset_timestamp_seconds")
		assert.NilError(t, err)
		return n
	}
	for _, nonsense := range []string{"", "half", "NaN", "+Inf", "-1"} {
		m.RateLimits(http.Header{"Anthropic-Ratelimit-Unified-7d-Utilization": {nonsense}})
	}
	assert.Equal(t, count(), 0)
	m.RateLimits(http.Header{"Anthropic-Ratelimit-Unified-7d-Utilization": {"0.25"}})
	m.RateLimits(http.Header{"Anthropic-Ratelimit-Unified-7d-Utilization": {"0.75"}, "Anthropic-Ratelimit-Unified-5h-Reset": {"1.7e9"}})
	m.RateLimits(http.Header{})
	assert.Equal(t, count(), 2)
	assert.NilError(t, testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP proxy_ratelimit_utilization_ratio Share of the Max plan's usage window that is used up, 1 being all, as the upstream last said.
# TYPE proxy_ratelimit_utilization_ratio gauge
proxy_ratelimit_utilization_ratio{window="7d"} 0.75
`), "proxy_ratelimit_utilization_ratio"))
}
