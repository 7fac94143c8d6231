package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// Contract row 2.8 and section 5: every request has one status, told once. However it ends, proxy_requests_total and
// proxy_request_duration_seconds_count agree for each status, and so do /health and the log.
func TestStatusesAddUp(t *testing.T) {
	t.Parallel()
	arrived := make(chan string, 10)
	p := start(t, newUpstream(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- r.URL.Path
		switch r.URL.Path {
		case "/breaks":
			panic(http.ErrAbortHandler)
		case "/streams", "/silent":
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "event")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/hangs", "/abandoned":
			<-r.Context().Done()
		}
	}), "timeout_secs = 1", "retries = 0", "max_body_bytes = 10")
	get(t, p.url("/answered"))
	do(t, "POST", p.url("/large"), "more than ten bytes")
	get(t, p.url("/breaks"))
	dial(t, p.addr).request("CONNECT", "elsewhere.test:443")
	malformed, stops := dial(t, p.addr), dial(t, p.addr)
	io.WriteString(malformed, "POST /malformed HTTP/1.1\r\nHost: proxy.test\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n")
	io.WriteString(stops, "POST /stops HTTP/1.1\r\nHost: proxy.test\r\nContent-Length: 10\r\n\r\nsome")
	hangs, silent := dial(t, p.addr), dial(t, p.addr)
	io.WriteString(hangs, "GET /hangs HTTP/1.1\r\nHost: proxy.test\r\n\r\n")
	io.WriteString(silent, "GET /silent HTTP/1.1\r\nHost: proxy.test\r\n\r\n")
	for _, path := range []string{"/abandoned", "/streams"} {
		c := dial(t, p.addr)
		io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: proxy.test\r\n\r\n")
		for receive(t, arrived, path) != path {
		}
		if path == "/streams" {
			_, err := c.in.ReadString('\n')
			assert.NilError(t, err)
		}
		c.Close()
	}
	want := map[string]struct {
		status  int
		outcome string
	}{
		"/answered": {200, "complete"}, "/large": {413, "complete"}, "/breaks": {502, "complete"}, "": {405, "complete"},
		"/malformed": {400, "complete"}, "/stops": {408, "complete"}, "/hangs": {504, "complete"}, "/silent": {200, "idle_timeout"},
		"/abandoned": {499, "client_gone"}, "/streams": {200, "client_gone"},
	}
	sums := map[int]int{401: 0, 403: 0}
	for path, w := range want {
		line := requestLine(p, path)
		assert.Check(t, line["status"] == float64(w.status) && line["outcome"] == w.outcome, "%q: %v", path, line)
		assert.Check(t, w.outcome != "idle_timeout" || line["level"] == "WARN", "%q: %v", path, line)
		sums[w.status]++
	}
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		_, text := get(t, p.url("/metrics"))
		counted, timed := map[int]int{}, map[int]int{}
		for line := range strings.Lines(text) {
			var status, n int
			if _, labels, ok := strings.Cut(line, "proxy_requests_total{"); ok {
				fmt.Sscanf(labels[strings.Index(labels, "status="):], `status="%d"} %d`, &status, &n)
				counted[status] += n
			}
			if _, err := fmt.Sscanf(line, `proxy_request_duration_seconds_count{status="%d"} %d`, &status, &n); err == nil {
				timed[status] += n
			}
		}
		if fmt.Sprint(counted) == fmt.Sprint(sums) && fmt.Sprint(timed) == fmt.Sprint(sums) {
			return poll.Success()
		}
		return poll.Continue("requests %v, durations %v, but there were %v", counted, timed, sums)
	}, poll.WithTimeout(patience))
	_, body := get(t, p.url("/health"))
	h := healthOf(t, body)
	assert.Equal(t, h["requests_served"], float64(len(want)))
	assert.Equal(t, h["errors_total"], 6.0)
	p.pollMetric(`proxy_upstream_errors_total{error_type="invalid_request"} 4`)
	p.pollMetric(`proxy_upstream_errors_total{error_type="connection"} 1`)
	p.pollMetric(`proxy_upstream_errors_total{error_type="timeout"} 1`)
	p.pollMetric(`proxy_streams_total{outcome="complete"} 1`)
	p.pollMetric(`proxy_streams_total{outcome="client_gone"} 1`)
	p.pollMetric(`proxy_event_streams_total{outcome="idle_timeout"} 1`)
	p.pollMetric(`proxy_event_streams_total{outcome="complete"} 0`)
}
