// Package metrics has the collectors behind /metrics and the counts of /health.
//
// Every label has a bounded set of values: no path, header or error text becomes a label, and a method that HTTP does not define
// counts as OTHER. Dashboards depend on the names, labels and buckets (contract section 5).
package metrics

import (
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Outcome is how an exchange ended. It is a label of proxy_streams_total and a field of the request log.
type Outcome string

// The outcomes.
const (
	Complete      Outcome = "complete"       // the whole answer was delivered
	ClientGone    Outcome = "client_gone"    // the client left first
	IdleTimeout   Outcome = "idle_timeout"   // the upstream was silent for too long; the answer was aborted
	UpstreamReset Outcome = "upstream_reset" // the upstream broke off; the answer was aborted
	Drained       Outcome = "drained"        // the drain's deadline aborted it
)

// Gauge is a number that rises and falls, readable by /health as well as by Prometheus.
type Gauge struct{ atomic.Int64 }

// Metrics are the proxy's own metrics. Callers may change the fields directly; the methods change related metrics together.
type Metrics struct {
	InFlight  Gauge // requests that have a slot
	Queued    Gauge // requests that wait for a slot or for memory for their body
	HeldBytes Gauge // memory reserved for request bodies

	BytesIn  prometheus.Counter // request body bytes read from clients
	BytesOut prometheus.Counter // response body bytes written to clients

	FirstByte prometheus.Histogram   // time from a request's arrival to the first byte of the response body
	Retries   *prometheus.CounterVec // repeated attempts, by what happened to the attempt before

	Served, Errors atomic.Int64 // how many requests have been counted by Headers and by Failed

	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	failures *prometheus.CounterVec
	answers  ends // all answers
	events   ends // only text/event-stream
	limits   rateLimits
}

// buckets are those of the replaced service, 5 ms to 60 s, and three more up to the API's own limit of 600 s.
var buckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}

// Limits are the configured limits, exported as metrics.
type Limits struct {
	MaxConnections   int64
	MaxBufferedBytes int64
}

// New registers all collectors with reg. version labels proxy_build_info. It panics if reg has them already.
func New(reg prometheus.Registerer, version string, limits Limits) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, g *Gauge) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(g.Load()) })
	}
	m := &Metrics{
		Retries: counters("proxy_upstream_retries_total",
			"Attempts repeated after a timeout, by what happened to the attempt before.", "previous"),
		BytesIn:  counter("proxy_request_bytes_total", "Request body bytes read from clients."),
		BytesOut: counter("proxy_response_bytes_total", "Response body bytes written to clients."),
		requests: counters("proxy_requests_total", "Proxied requests by the status that was sent (499: the client left before any was) and method.", "status", "method"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "proxy_request_duration_seconds",
			Help: "Time from the request's arrival to the response headers, or to its end without any.", Buckets: buckets}, []string{"status"}),
		failures: counters("proxy_upstream_errors_total", "Requests answered with an error of the proxy's own.", "error_type"),
		FirstByte: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "proxy_time_to_first_byte_seconds",
			Help: "Time from the request's arrival to the first byte of the response body.", Buckets: buckets}),
		answers: newEnds("proxy_streams_total", "proxy_stream_duration_seconds", "Responses of the upstream"),
		events:  newEnds("proxy_event_streams_total", "proxy_event_stream_duration_seconds", "Event streams (text/event-stream) of the upstream"),
	}
	for _, kind := range []string{"timeout", "connection", "invalid_request"} {
		m.failures.WithLabelValues(kind) // start at 0, else increase() does not count the first event
	}
	for _, status := range []string{"200", "400", "401", "403"} { // the ones that OAuthProxyRejected counts, and 200 for its total
		m.requests.WithLabelValues(status, http.MethodPost)
		m.duration.WithLabelValues(status)
	}
	for _, previous := range []string{"nothing_sent", "may_have_been_read"} {
		m.Retries.WithLabelValues(previous)
	}
	constant := func(name, help string, value int64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value) })
	}
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "proxy_build_info", Help: "Always 1; the labels name the build.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()}}, func() float64 { return 1 })
	reg.MustRegister(
		gauge("proxy_requests_in_flight", "Requests being proxied, until the last byte of the response.", &m.InFlight),
		gauge("proxy_requests_queued", "Requests waiting for a slot or for memory for their body.", &m.Queued),
		constant("proxy_max_connections", "Requests that are proxied at the same time; more wait.", limits.MaxConnections),
		constant("proxy_max_buffered_bytes", "Memory for all request bodies together; more wait.", limits.MaxBufferedBytes),
		gauge("proxy_held_body_bytes", "Memory reserved for request bodies.", &m.HeldBytes),
		m.Retries, m.BytesIn, m.BytesOut, m.requests, m.duration, m.failures, m.FirstByte, &m.limits, build,
		m.answers.outcomes, m.answers.duration, m.events.outcomes, m.events.duration,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Headers counts a request by the status that the client gets, or by 499 if the client leaves before. d is the time since the
// request's arrival. It must be called once for each request.
func (m *Metrics) Headers(method string, status int, d time.Duration) {
	m.Served.Add(1)
	text := strconv.Itoa(status)
	m.requests.WithLabelValues(text, boundedMethod(method)).Inc()
	m.duration.WithLabelValues(text).Observe(d.Seconds())
}

// Failed counts a request that is answered with an error of the proxy's own; kind is one of the error types.
func (m *Metrics) Failed(kind string) {
	m.Errors.Add(1)
	m.failures.WithLabelValues(kind).Inc()
}

// StreamEnded counts the end of an upstream's response, d after the request's arrival.
func (m *Metrics) StreamEnded(outcome Outcome, eventStream bool, d time.Duration) {
	m.answers.count(outcome, d)
	if eventStream {
		m.events.count(outcome, d)
	}
}

// ends counts how answers of a kind end, and how long they took.
type ends struct {
	outcomes *prometheus.CounterVec
	duration prometheus.Histogram
}

func newEnds(counter, histogram, what string) ends {
	e := ends{
		prometheus.NewCounterVec(prometheus.CounterOpts{Name: counter, Help: what + " by how they ended."}, []string{"outcome"}),
		prometheus.NewHistogram(prometheus.HistogramOpts{Name: histogram, Help: what + ": time from the request's arrival to the last byte.",
			Buckets: append(buckets[:len(buckets):len(buckets)], 1200, 1800, 3600)}),
	}
	for _, outcome := range []Outcome{Complete, ClientGone, IdleTimeout, UpstreamReset, Drained} {
		e.outcomes.WithLabelValues(string(outcome))
	}
	return e
}

func (e ends) count(outcome Outcome, d time.Duration) {
	e.outcomes.WithLabelValues(string(outcome)).Inc()
	e.duration.Observe(d.Seconds())
}

func boundedMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	}
	return "OTHER"
}
