// Package metrics holds what /metrics tells and what /health counts.
//
// Every label value is bounded by this package's code: no path, header or error text becomes a label, and a method that
// HTTP does not define counts as OTHER. Names, labels and buckets are contract section 5; dashboards depend on them.
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

// Outcome says how an exchange ended; it is a label of proxy_streams_total and a field of the request log.
type Outcome string

// The outcomes.
const (
	Complete      Outcome = "complete"       // the answer was delivered to its last byte
	ClientGone    Outcome = "client_gone"    // the client left first
	IdleTimeout   Outcome = "idle_timeout"   // the upstream fell silent; the answer was aborted
	UpstreamReset Outcome = "upstream_reset" // the upstream broke off; the answer was aborted
	Drained       Outcome = "drained"        // the drain's deadline aborted it
)

// Error types of proxy_upstream_errors_total.
const (
	Timeout        = "timeout"
	Connection     = "connection"
	InvalidRequest = "invalid_request"
)

// Gauge is a number that rises and falls, readable by /health as well as by Prometheus.
type Gauge struct{ atomic.Int64 }

// Metrics are the proxy's own numbers. The fields may be changed directly; the methods keep related ones in step.
type Metrics struct {
	InFlight  Gauge // requests holding a slot
	Queued    Gauge // requests waiting for room for their body or for a slot
	HeldBytes Gauge // room taken by request bodies, reserved room included

	Retries  prometheus.Counter
	BytesIn  prometheus.Counter // request body bytes read from clients
	BytesOut prometheus.Counter // response body bytes written to clients

	served, errors atomic.Int64

	requests  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	failures  *prometheus.CounterVec
	firstByte prometheus.Histogram
	streams   *prometheus.CounterVec
	stream    prometheus.Histogram
	limits    rateLimits
}

// buckets are the replaced service's, 5 ms to 60 s, and on to the API's own limit of 600 s.
var buckets = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}

// New registers all collectors with reg. version labels proxy_build_info. It panics if reg has them already.
func New(reg prometheus.Registerer, version string) *Metrics {
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
		Retries:  counter("proxy_upstream_retries_total", "Attempts repeated after a timeout."),
		BytesIn:  counter("proxy_request_bytes_total", "Request body bytes read from clients."),
		BytesOut: counter("proxy_response_bytes_total", "Response body bytes written to clients."),
		requests: counters("proxy_requests_total", "Proxied requests by status (499: the client left first) and method.", "status", "method"),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "proxy_request_duration_seconds",
			Help: "Time from the request's arrival to the response headers.", Buckets: buckets}, []string{"status"}),
		failures: counters("proxy_upstream_errors_total", "Requests answered with an error of the proxy's own.", "error_type"),
		firstByte: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "proxy_time_to_first_byte_seconds",
			Help: "Time from the request's arrival to the first byte of the response body.", Buckets: buckets}),
		streams: counters("proxy_streams_total", "Responses of the upstream by how they ended.", "outcome"),
		stream: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "proxy_stream_duration_seconds",
			Help: "Time from the request's arrival to the response's last byte.", Buckets: append(buckets[:len(buckets):len(buckets)], 1200, 1800, 3600)}),
	}
	for _, kind := range []string{Timeout, Connection, InvalidRequest} {
		m.failures.WithLabelValues(kind) // a series that starts at 0 lets rate() see the first error
	}
	for _, outcome := range []Outcome{Complete, ClientGone, IdleTimeout, UpstreamReset, Drained} {
		m.streams.WithLabelValues(string(outcome))
	}
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "proxy_build_info", Help: "Always 1; the labels tell the build.",
		ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()}}, func() float64 { return 1 })
	reg.MustRegister(
		gauge("proxy_requests_in_flight", "Requests being proxied, each until its last byte.", &m.InFlight),
		gauge("proxy_requests_queued", "Requests waiting for a slot or for room for their body.", &m.Queued),
		gauge("proxy_held_body_bytes", "Room taken by request bodies held for a possible retry.", &m.HeldBytes),
		m.Retries, m.BytesIn, m.BytesOut, m.requests, m.duration, m.failures, m.firstByte, m.streams, m.stream, &m.limits, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Headers notes that the response headers, or whatever ended an exchange without any, came d after the request.
func (m *Metrics) Headers(status int, d time.Duration) {
	m.duration.WithLabelValues(strconv.Itoa(status)).Observe(d.Seconds())
}

// Counted counts a request under its final status. It is called once per request, before the client can have all of the
// answer, so that whoever has an answer finds it counted.
func (m *Metrics) Counted(method string, status int) {
	m.served.Add(1)
	m.requests.WithLabelValues(strconv.Itoa(status), boundedMethod(method)).Inc()
}

// Failed counts a request that is answered with an error of the proxy's own; kind is one of the error types.
func (m *Metrics) Failed(kind string) {
	m.errors.Add(1)
	m.failures.WithLabelValues(kind).Inc()
}

// FirstByte counts the first byte of a response body, d after the request's arrival.
func (m *Metrics) FirstByte(d time.Duration) { m.firstByte.Observe(d.Seconds()) }

// StreamEnded counts the end of an upstream's response, d after the request's arrival.
func (m *Metrics) StreamEnded(outcome Outcome, d time.Duration) {
	m.streams.WithLabelValues(string(outcome)).Inc()
	m.stream.Observe(d.Seconds())
}

// Served returns how many requests have been counted by Counted.
func (m *Metrics) Served() int64 { return m.served.Load() }

// Errors returns how many requests have been counted by Failed.
func (m *Metrics) Errors() int64 { return m.errors.Load() }

func boundedMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
		http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	}
	return "OTHER"
}
