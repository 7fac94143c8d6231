package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// TestMetricsOfAnExchange covers section 5's numbers for a plain exchange, bytes and times included.
func TestMetricsOfAnExchange(t *testing.T) {
	t.Parallel()
	handler, arrivals := holder()
	g := start(t, serveUpstream(t, handler).URL)
	c := g.dial(t)
	c.post(5, "hello")
	h := within(t, arrivals, "the request")
	assert.Equal(t, g.metric(t, "proxy_requests_in_flight"), 1.0)
	assert.Equal(t, g.metric(t, "proxy_held_body_bytes"), 5.0)
	assert.Equal(t, g.metric(t, `proxy_requests_total{method="POST",status="200"}`), 0.0)
	h.send(t, "some text")
	c.response("POST")
	c.event("some text")
	// What was sent is what counts, however the response ends.
	assert.Equal(t, g.metric(t, `proxy_requests_total{method="POST",status="200"}`), 1.0)
	assert.Equal(t, g.metric(t, `proxy_request_duration_seconds_count{status="200"}`), 1.0)
	assert.Equal(t, g.metric(t, "proxy_stream_duration_seconds_count"), 0.0)
	assert.Equal(t, g.metric(t, "proxy_requests_in_flight"), 1.0)
	assert.Equal(t, g.metric(t, "proxy_held_body_bytes"), 0.0)
	close(h.step)
	g.finished(t)
	for series, want := range map[string]float64{
		"proxy_request_bytes_total":                        5,
		"proxy_response_bytes_total":                       9,
		"proxy_time_to_first_byte_seconds_count":           1,
		"proxy_stream_duration_seconds_count":              1,
		`proxy_streams_total{outcome="complete"}`:          1,
		`proxy_streams_total{outcome="client_gone"}`:       0,
		"proxy_requests_in_flight":                         0,
		"proxy_requests_queued":                            0,
		`proxy_requests_total{method="POST",status="200"}`: 1,
	} {
		assert.Equal(t, g.metric(t, series), want, series)
	}
}

// TestMetricsOfAbortedStreams covers section 5: an aborted stream leaves the handlers by a panic, and is counted all the
// same: its status, its bytes, its time and how it ended.
func TestMetricsOfAbortedStreams(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		outcome string
		abort   func(t *testing.T, c *rawClient, h *held)
	}{
		{"client_gone", func(_ *testing.T, c *rawClient, _ *held) { c.Close() }},
		{"idle_timeout", func(*testing.T, *rawClient, *held) {}},
		{"upstream_reset", func(t *testing.T, _ *rawClient, h *held) { h.send(t, "panic") }},
	} {
		t.Run(tt.outcome, func(t *testing.T) {
			t.Parallel()
			handler, arrivals := holder()
			upstream := serveUpstream(t, func(w http.ResponseWriter, r *http.Request) {
				handler(panicking{w}, r)
			})
			limit := patience
			if tt.outcome == "idle_timeout" {
				limit = time.Second
			}
			g := start(t, upstream.URL, timeout(limit))
			c := g.dial(t)
			c.post(1, "a")
			h := within(t, arrivals, "the request")
			h.send(t, "some")
			c.response("POST")
			c.event("some")
			tt.abort(t, c, h)
			assert.Equal(t, g.finished(t)["outcome"], tt.outcome)
			for series, want := range map[string]float64{
				`proxy_streams_total{outcome="` + tt.outcome + `"}`:  1,
				`proxy_streams_total{outcome="complete"}`:            0,
				`proxy_requests_total{method="POST",status="200"}`:   1, // row 2.8: what was sent
				`proxy_request_duration_seconds_count{status="200"}`: 1,
				"proxy_stream_duration_seconds_count":                1,
				"proxy_response_bytes_total":                         4,
				"proxy_requests_in_flight":                           0,
				"proxy_held_body_bytes":                              0,
			} {
				assert.Equal(t, g.metric(t, series), want, series)
			}
		})
	}
}

// panicking is a ResponseWriter that breaks the response off when it is told to.
type panicking struct{ http.ResponseWriter }

func (w panicking) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w panicking) Write(p []byte) (int, error) {
	if string(p) == "panic" {
		panic(http.ErrAbortHandler)
	}
	return w.ResponseWriter.Write(p)
}

func (w panicking) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// TestMetricLabels covers section 5: methods outside the standard set are OTHER, and no label comes from a request.
func TestMetricLabels(t *testing.T) {
	t.Parallel()
	g := start(t, serveUpstream(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "") }).URL)
	for _, method := range []string{"GET", "POST", "PROPFIND", "get", "HUSH", "OPTIONS", "TRACE"} {
		c := g.dial(t)
		c.send(method + " /hush?hush HTTP/1.1\r\nHost: hush\r\nHush: hush\r\n\r\n")
		assert.Equal(t, c.response(method).StatusCode, http.StatusOK)
		assert.Equal(t, g.finished(t)["method"], method)
	}
	assert.Equal(t, g.metric(t, `proxy_requests_total{method="OTHER",status="200"}`), 3.0)
	for _, method := range []string{"GET", "POST", "OPTIONS", "TRACE"} {
		assert.Equal(t, g.metric(t, `proxy_requests_total{method="`+method+`",status="200"}`), 1.0, method)
	}
	assert.Assert(t, !strings.Contains(strings.ToLower(g.scraped()), "hush"), "a metric says what a request said")
}

// TestMetricBuckets covers section 5's buckets, and that Go's and the process's own numbers are there. Names: package metrics.
func TestMetricBuckets(t *testing.T) {
	t.Parallel()
	g := start(t, serveUpstream(t, func(http.ResponseWriter, *http.Request) {}).URL)
	g.get(t, "/")
	text := g.scraped()
	assert.Assert(t, !strings.Contains(text, "tailnet"))
	assert.Assert(t, strings.Contains(text, "\ngo_goroutines ") && strings.Contains(text, "process_"), "the Go and process collectors are missing")
	for _, bound := range []string{"0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "30", "60", "120", "300", "600", "+Inf"} {
		assert.Assert(t, strings.Contains(text, `proxy_request_duration_seconds_bucket{status="200",le="`+bound+`"}`), "the bucket %s is missing", bound)
	}
	assert.Assert(t, strings.Contains(text, `proxy_stream_duration_seconds_bucket{le="3600"}`))
}
