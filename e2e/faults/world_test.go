package faults

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// end is how a request ended. Its client, the log and the counters must tell the same story.
type end string

const (
	answered   end = "answered"                     // the upstream's answer, to its proper end
	failed     end = "502"                          // no answer: connection
	timedOut   end = "504"                          // no answer: timeout
	refused    end = "400"                          // not forwarded
	broken     end = "aborted: upstream_reset"      // the answer broke off, and the client can tell
	silent     end = "aborted: idle_timeout"        // the upstream fell silent within the answer
	left       end = "client left"                  // before the upstream's headers
	leftWithin end = "client left within an answer" // after them
)

// upstream is what stands behind the proxy.
type upstream interface {
	url() string
	environment() []string // what the proxy needs to trust it
	close()                // ends all of its connections and waits for their goroutines
}

// world is one process, what is around it, and what its counters must show in the end.
type world struct {
	t        *testing.T
	up       upstream
	p        *process
	scraper  *http.Client // one connection, kept, so that looking does not change what is seen
	mu       sync.Mutex
	clients  []*client
	expected map[string]float64
	before   map[string]float64 // the metrics before the first request
}

// newWorld runs the binary in front of up. Settings are lines of the [proxy] section; unless they say otherwise nothing is
// retried and the timeout is longer than any passing test takes.
func newWorld(t *testing.T, up upstream, settings ...string) *world {
	t.Helper()
	return newWorldUnder(t, nil, up, settings...)
}

func newWorldUnder(t *testing.T, command []string, up upstream, settings ...string) *world {
	t.Helper()
	config := map[string]string{"upstream_url": strconv.Quote(up.url()), "timeout_secs": "25", "retries": "0"}
	for _, setting := range settings {
		key, value, ok := strings.Cut(setting, " = ")
		assert.Assert(t, ok, "%q is no setting", setting)
		config[key] = value
	}
	var text strings.Builder
	text.WriteString("[proxy]\n")
	for _, key := range slices.Sorted(maps.Keys(config)) {
		fmt.Fprintf(&text, "%s = %s\n", key, config[key])
	}
	w := &world{t: t, up: up, expected: map[string]float64{},
		scraper: &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}, Timeout: patience}}
	w.p = launch(t, command, up.environment(), text.String())
	w.scrape(t) // opens the scraper's connection, which is part of what was there before
	w.before = w.scrape(t)
	for range 10 { // gathering metrics takes goroutines itself, sometimes more, sometimes fewer
		w.before["go_goroutines"] = max(w.before["go_goroutines"], w.scrape(t)["go_goroutines"])
	}
	t.Cleanup(w.end)
	return w
}

// end closes all sockets and demands that nothing is left behind.
func (w *world) end() {
	w.mu.Lock()
	for _, c := range w.clients {
		c.Close()
	}
	w.mu.Unlock()
	w.up.close()
	if !w.t.Failed() {
		w.until(w.t, w.wrong)
	}
	w.scraper.CloseIdleConnections()
	if !w.t.Failed() {
		w.p.stop(w.t)
	}
}

// counters are the families of which every series must be what the requests of the test add up to.
var counters = []string{"proxy_requests_total", "proxy_upstream_errors_total", "proxy_streams_total", "proxy_upstream_retries_total"}

// wrong says what is not as it must be when everything is over.
func (w *world) wrong(m map[string]float64) string {
	var wrong []string
	for _, gauge := range []string{"proxy_requests_in_flight", "proxy_requests_queued", "proxy_held_body_bytes"} {
		if m[gauge] != 0 {
			wrong = append(wrong, fmt.Sprintf("%s is %v", gauge, m[gauge]))
		}
	}
	for _, gauge := range []string{"go_goroutines", "process_open_fds"} {
		if m[gauge] > w.before[gauge] {
			wrong = append(wrong, fmt.Sprintf("%s is %v, it was %v before the first request", gauge, m[gauge], w.before[gauge]))
		}
	}
	series := maps.Clone(w.expected)
	for name := range m {
		if family, _, _ := strings.Cut(name, "{"); slices.Contains(counters, family) {
			series[name] += 0
		}
	}
	for _, name := range slices.Sorted(maps.Keys(series)) {
		if m[name] != series[name] {
			wrong = append(wrong, fmt.Sprintf("%s is %v, want %v", name, m[name], series[name]))
		}
	}
	return strings.Join(wrong, "; ")
}

// scrape reads /metrics.
func (w *world) scrape(t *testing.T) map[string]float64 {
	t.Helper()
	m, err := w.metrics()
	assert.NilError(t, err)
	return m
}

func (w *world) metrics() (map[string]float64, error) {
	res, err := w.scraper.Get("http://" + w.p.addr + "/metrics")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	m := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			if m[line[:i]], err = strconv.ParseFloat(line[i+1:], 64); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// until waits for a state of the metrics. wrong says what is not as it should be.
func (w *world) until(t *testing.T, wrong func(m map[string]float64) string) {
	t.Helper()
	poll.WaitOn(t, func(poll.LogT) poll.Result {
		m, err := w.metrics()
		if err != nil {
			return poll.Error(err)
		}
		if text := wrong(m); text != "" {
			return poll.Continue("%s", text)
		}
		return poll.Success()
	}, poll.WithTimeout(patience), poll.WithDelay(5*time.Millisecond))
}

// reaches waits until a gauge has a value.
func (w *world) reaches(gauge string, value float64) {
	w.t.Helper()
	w.until(w.t, func(m map[string]float64) string {
		if m[gauge] == value {
			return ""
		}
		return fmt.Sprintf("%s is %v, it should become %v", gauge, m[gauge], value)
	})
}

// expect adds to what the counters must show.
func (w *world) expect(format string, args ...any) {
	w.expected[fmt.Sprintf(format, args...)]++
}

// ended waits until the request of a client is over, demands that it ended in one of the given ways, and that client, log
// and counters agree. It returns the way, and the line of the log.
func (w *world) ended(c *client, want ...end) (end, line) {
	t := w.t
	t.Helper()
	var seen answer
	leaves := slices.Contains(want, left) || slices.Contains(want, leftWithin)
	if !leaves {
		seen = c.rest()
	}
	logged := w.p.log.request(t, c.path)
	status := int(logged["status"].(float64))
	got := endOf(logged, status)
	if got == left && slices.Contains(want, leftWithin) {
		got = leftWithin // the log does not tell these apart, but proxy_streams_total does
	}
	assert.Assert(t, slices.Contains(want, got), "%s: got %s (the client saw %v), want %v", c.path, got, seen, want)
	if !leaves {
		whole := got != broken && got != silent
		if whole || seen.status != 0 { // an answer that is aborted soon may be aborted with its head
			assert.Equal(t, seen.status, status, "%s: client and log disagree", c.path)
		}
		assert.Assert(t, (seen.err == nil) == whole || seen.allDeclared(c.method), "%s: %s, but the client saw %v", c.path, got, seen)
		for _, h := range []http.Header{seen.header, seen.trailer} {
			for name := range h {
				assert.Assert(t, !strings.Contains(strings.ToLower(name), smuggled), "a header got through that was none: %v", h)
			}
		}
		ours := strings.Contains(seen.body, `"type":"proxy_error"`)
		assert.Equal(t, ours, got == failed || got == timedOut || got == refused, "%s: %s, but the client got %v", c.path, got, seen)
		assert.Assert(t, !strings.Contains(seen.body, hush) || got == answered || got == broken || got == silent, "the upstream is quoted: %v", seen)
	}
	w.book(got, c.method, logged)
	return got, logged
}

// book adds a request that has ended to what the counters must show.
func (w *world) book(got end, method string, logged line) {
	w.expect("proxy_requests_total{method=%q,status=\"%v\"}", method, logged["status"])
	switch got {
	case answered:
		w.expect(`proxy_streams_total{outcome="complete"}`)
	case broken:
		w.expect(`proxy_streams_total{outcome="upstream_reset"}`)
	case silent:
		w.expect(`proxy_streams_total{outcome="idle_timeout"}`)
	case leftWithin:
		w.expect(`proxy_streams_total{outcome="client_gone"}`)
	case failed:
		w.expect(`proxy_upstream_errors_total{error_type="connection"}`)
	case timedOut:
		w.expect(`proxy_upstream_errors_total{error_type="timeout"}`)
	case left:
	default: // our own refusals: 400, 405, 505
		w.expect(`proxy_upstream_errors_total{error_type="invalid_request"}`)
	}
	if n, ok := logged["attempts"].(float64); ok && n > 1 {
		w.expected["proxy_upstream_retries_total"] += n - 1
	}
}

// endOf says how the log says that a request ended.
func endOf(logged line, status int) end {
	switch logged["outcome"] {
	case "upstream_reset":
		return broken
	case "idle_timeout":
		return silent
	case "client_gone":
		return left
	case "complete":
		if logged["error"] == nil {
			return answered
		}
		return end(strconv.Itoa(status))
	}
	return end(fmt.Sprint("unknown outcome ", logged["outcome"]))
}

// peakMemory is the most memory that the process has had at once, in bytes.
func (w *world) peakMemory() int64 {
	w.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.p.cmd.Process.Pid))
	assert.NilError(w.t, err)
	_, after, found := strings.Cut(string(text), "VmHWM:")
	assert.Assert(w.t, found, "no VmHWM in:\n%s", text)
	kib, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	assert.NilError(w.t, err)
	return kib << 10
}

// bounded demands that the process never had more than so much memory. Under the race detector, memory is not what it is.
func (w *world) bounded(mib int64) {
	w.t.Helper()
	peak := w.peakMemory() >> 20
	w.t.Logf("peak memory: %d MiB", peak)
	assert.Check(w.t, underRace() || peak < mib, "the process had %d MiB at its peak, want less than %d", peak, mib)
}
