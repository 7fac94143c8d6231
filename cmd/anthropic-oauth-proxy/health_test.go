package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// healthOf decodes what /health says.
func healthOf(t *testing.T, body string) map[string]any {
	t.Helper()
	var h map[string]any
	assert.NilError(t, json.Unmarshal([]byte(body), &h))
	return h
}

// Contract section 5: /health has exactly these keys. requests_served counts proxied requests, errors_total our own
// errors and not the upstream's; neither counts /health and /metrics themselves.
func TestHealth(t *testing.T) {
	t.Parallel()
	p := start(t, newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/overloaded" {
			w.WriteHeader(529)
		}
	}), "max_body_bytes = 4")
	do(t, http.MethodPost, p.url("/"), "fits")
	do(t, http.MethodPost, p.url("/overloaded"), "")
	resp, _ := do(t, http.MethodPost, p.url("/"), "does not fit")
	assert.Equal(t, resp.StatusCode, http.StatusRequestEntityTooLarge)
	get(t, p.url("/metrics"))
	get(t, p.url("/health"))

	resp, body := get(t, p.url("/health"))
	assert.Equal(t, resp.StatusCode, http.StatusOK)
	assert.Equal(t, resp.Header.Get("Content-Type"), "application/json")
	h := healthOf(t, body)
	keys := slices.Sorted(maps.Keys(h))
	assert.DeepEqual(t, keys, []string{"errors_total", "in_flight", "requests_served", "status", "uptime_seconds"})
	assert.Equal(t, h["status"], "healthy")
	assert.Equal(t, h["requests_served"], 3.0)
	assert.Equal(t, h["errors_total"], 1.0)
	assert.Equal(t, h["in_flight"], 0.0)
	assert.Check(t, h["uptime_seconds"].(float64) >= 0)
}

// Contract section 5: an upstream that cannot be reached makes neither /health nor /metrics worse.
func TestHealthNeedsNoUpstream(t *testing.T) {
	t.Parallel()
	p := start(t, "http://127.0.0.1:1")
	resp, _ := do(t, http.MethodPost, p.url("/v1/messages"), "{}")
	assert.Equal(t, resp.StatusCode, http.StatusBadGateway)
	resp, body := get(t, p.url("/health"))
	assert.Equal(t, resp.StatusCode, http.StatusOK)
	assert.Equal(t, healthOf(t, body)["errors_total"], 1.0)
	resp, _ = get(t, p.url("/metrics"))
	assert.Equal(t, resp.StatusCode, http.StatusOK)
}

// Contract section 5: GET and HEAD only, on our own two paths; and neither is ever forwarded.
func TestHealthMethods(t *testing.T) {
	t.Parallel()
	p := start(t, newUpstream(t, func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s reached the upstream", r.Method, r.RequestURI)
	}))
	for _, path := range []string{"/health", "/metrics"} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW", "CONNECT"} {
			resp, body := dial(t, p.addr).request(method, path)
			assert.Check(t, resp.StatusCode == http.StatusMethodNotAllowed, "%s %s: status %d", method, path, resp.StatusCode)
			assert.Check(t, resp.Header.Get("Allow") == "GET, HEAD", "%s %s: Allow: %s", method, path, resp.Header.Get("Allow"))
			var e struct {
				Type      string
				RequestID string `json:"request_id"`
				Error     struct{ Type, Message string }
			}
			assert.NilError(t, json.Unmarshal([]byte(body), &e), "%s %s: %s", method, path, body)
			assert.Check(t, e.Type == "error" && e.Error.Type == "proxy_error" && e.Error.Message != "" && e.RequestID != "" &&
				e.RequestID == resp.Header.Get("Request-Id"), "%s %s: not our error shape: %s", method, path, body)
		}
		c := dial(t, p.addr)
		resp, body := c.request("HEAD", path)
		assert.Equal(t, resp.StatusCode, http.StatusOK)
		assert.Equal(t, body, "")
		resp, body = c.request("GET", path) // a body after HEAD would be read as the beginning of this answer
		assert.Equal(t, resp.StatusCode, http.StatusOK)
		assert.Check(t, body != "")
	}
}

// Contract sections 4 and 5: /health and /metrics answer while all slots are taken and others queue for them.
func TestOwnPathsWhileAllSlotsAreTaken(t *testing.T) {
	t.Parallel()
	upstream := newStream(t)
	p := start(t, upstream.url, "max_connections = 1")
	running := open(t, p.url("/running"))
	queued := make(chan error, 1)
	go func() {
		resp, err := newClient(t).Get(p.url("/queued"))
		if err == nil {
			defer resp.Body.Close()
			_, err = io.Copy(io.Discard, resp.Body)
		}
		queued <- err
	}()
	p.pollMetric("proxy_requests_queued 1")
	p.pollMetric("proxy_requests_in_flight 1")
	resp, body := get(t, p.url("/health"))
	assert.Equal(t, resp.StatusCode, http.StatusOK)
	assert.Equal(t, healthOf(t, body)["in_flight"], 1.0)
	close(upstream.events)
	_, err := io.Copy(io.Discard, running.Body)
	assert.NilError(t, err)
	assert.NilError(t, receive(t, queued, "the queued request's answer"))
	p.pollMetric("proxy_requests_queued 0")
	p.pollMetric("proxy_requests_in_flight 0")
}

// Contract section 5: the metrics, by name, type and label.
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

	lines := map[string]bool{}
	for line := range strings.Lines(text) {
		lines[strings.TrimSuffix(line, "\n")] = true
	}
	for _, want := range []string{
		`# TYPE proxy_requests_total counter`,
		`proxy_requests_total{method="POST",status="200"} 1`,
		`proxy_requests_total{method="POST",status="413"} 1`,
		`proxy_requests_total{method="OTHER",status="200"} 1`,
		`# TYPE proxy_request_duration_seconds histogram`,
		`proxy_request_duration_seconds_count{status="200"} 2`,
		`# TYPE proxy_upstream_errors_total counter`,
		`proxy_upstream_errors_total{error_type="timeout"} 0`,
		`proxy_upstream_errors_total{error_type="connection"} 0`,
		`proxy_upstream_errors_total{error_type="invalid_request"} 1`,
		`# TYPE proxy_requests_in_flight gauge`,
		`proxy_requests_in_flight 0`,
		`# TYPE proxy_requests_queued gauge`,
		`proxy_requests_queued 0`,
		`# TYPE proxy_upstream_retries_total counter`,
		`proxy_upstream_retries_total{previous="nothing_sent"} 0`,
		`proxy_upstream_retries_total{previous="may_have_been_read"} 0`,
		`proxy_max_connections 1000`,
		`proxy_max_buffered_bytes 6.7108864e+07`,
		`proxy_event_streams_total{outcome="complete"} 0`,
		`proxy_event_stream_duration_seconds_count 0`,
		`# TYPE proxy_held_body_bytes gauge`,
		`proxy_held_body_bytes 0`,
		`# TYPE proxy_request_bytes_total counter`,
		`proxy_request_bytes_total 7`,
		`# TYPE proxy_response_bytes_total counter`,
		`# TYPE proxy_time_to_first_byte_seconds histogram`,
		`# TYPE proxy_stream_duration_seconds histogram`,
		`proxy_stream_duration_seconds_count 2`,
		`# TYPE proxy_streams_total counter`,
		`proxy_streams_total{outcome="complete"} 2`,
		`proxy_streams_total{outcome="client_gone"} 0`,
		`proxy_streams_total{outcome="idle_timeout"} 0`,
		`proxy_streams_total{outcome="upstream_reset"} 0`,
		`proxy_streams_total{outcome="drained"} 0`,
		`# TYPE proxy_build_info gauge`,
		`# TYPE go_goroutines gauge`,
		`# TYPE process_resident_memory_bytes gauge`,
	} {
		assert.Check(t, lines[want], "missing: %s", want)
	}
	assert.DeepEqual(t, buckets(text, `proxy_request_duration_seconds_bucket{status="200",`), []string{
		"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30", "60", "120", "300", "600", "+Inf"})
	durations := buckets(text, `proxy_stream_duration_seconds_bucket{`)
	assert.DeepEqual(t, durations[len(durations)-2:], []string{"3600", "+Inf"})
	for _, unwanted := range []string{"tailnet", "tailscale", "secret", "BREW"} {
		assert.Check(t, !strings.Contains(text, unwanted), "/metrics speaks of %s", unwanted)
	}
}

// buckets returns the upper bounds of a histogram's buckets.
func buckets(text, prefix string) (bounds []string) {
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			_, rest, _ = strings.Cut(rest, `le="`)
			bound, _, _ := strings.Cut(rest, `"`)
			bounds = append(bounds, bound)
		}
	}
	return bounds
}
