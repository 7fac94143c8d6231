package proxy_test

import (
	"testing"

	"gotest.tools/v3/assert"
)

// TestMetricsOfAnExchange covers section 5's numbers for a plain exchange, bytes and times included.
func TestMetricsOfAnExchange(t *testing.T) {
	t.Parallel()
	handler, arrivals := blockingHandler()
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
