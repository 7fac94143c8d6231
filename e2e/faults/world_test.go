package faults

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// patience is how long a test waits for what must happen. Only a failing test waits that long.
const patience = binary.Patience

func TestMain(m *testing.M) {
	flag.Parse()
	explicit := false
	flag.Visit(func(f *flag.Flag) { explicit = explicit || f.Name == "test.parallel" })
	if !explicit {
		flag.Set("test.parallel", "8") // the tests spend most of their time waiting
	}
	var flags []string
	if underRace() {
		flags = append(flags, "-race")
	}
	os.Exit(binary.Main(m, flags...))
}

// underRace reports whether this is a build with the race detector. The detector multiplies a program's memory.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// hush is sent by upstreams instead of HTTP. It must appear in no log line and in none of the proxy's own answers.
const hush = "hush-hush"

// trusted is the CA that every process under test trusts, unless its upstream has another.
var trusted = sync.OnceValues(standin.NewAuthority)

// end is how a request ended. The client's result, the log and the counters must agree on it.
type end string

const (
	answered   end = "answered"                     // the upstream's complete answer
	failed     end = "502"                          // no answer: connection
	timedOut   end = "504"                          // no answer: timeout
	broken     end = "aborted: upstream_reset"      // the answer broke off, and the client can see it
	silent     end = "aborted: idle_timeout"        // the upstream became silent within the answer
	left       end = "client left"                  // before any header was sent
	leftWithin end = "client left within an answer" // after that
)

// upstream is the server behind the proxy.
type upstream struct {
	url    string
	caFile string   // default: the file of trusted
	under  []string // the command that runs the process
	env    []string
	close  func() // ends all of its connections and waits for their goroutines
}

// world is one process with its upstream and clients, and what its counters must show in the end.
type world struct {
	t        *testing.T
	p        *binary.Process
	mu       sync.Mutex
	clients  []*conn
	expected map[string]float64
	before   binary.Metrics // before the first request
}

// newWorld runs the binary in front of an upstream. Settings are lines of the [proxy] section. By default nothing is retried, and the
// timeout is longer than any passing test takes.
func newWorld(t *testing.T, up upstream, settings ...string) *world {
	t.Helper()
	config := map[string]string{"timeout_secs": "25", "retries": "0"}
	for _, setting := range settings {
		key, value, ok := strings.Cut(setting, " = ")
		assert.Assert(t, ok, "%q is not a setting", setting)
		config[key] = value
	}
	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(config)) {
		fmt.Fprintf(&text, "%s = %s\n", key, config[key])
	}
	if up.caFile == "" {
		ca, err := trusted()
		assert.NilError(t, err)
		up.caFile = filepath.Join(t.TempDir(), "ca.pem")
		assert.NilError(t, ca.Write(up.caFile))
	}
	w := &world{t: t, expected: map[string]float64{}}
	w.p = binary.Start(t, binary.Config{Upstream: up.url, CAFile: up.caFile, Proxy: text.String(), Under: up.under,
		Env: append(up.env, "GORACE=atexit_sleep_ms=10"), Secrets: []string{hush, client.Token, "DATA RACE", "panic"}})
	w.before = w.scrape()
	for range 10 { // gathering metrics itself needs goroutines, and their number varies
		m := w.scrape()
		for _, gauge := range resources {
			w.before[gauge] = max(w.before[gauge], m[gauge])
		}
	}
	t.Cleanup(func() { w.end(up) })
	return w
}

// end closes all sockets and checks that nothing is left over.
func (w *world) end(up upstream) {
	w.mu.Lock()
	for _, c := range w.clients {
		c.Close()
	}
	w.mu.Unlock()
	if up.close != nil {
		up.close()
	}
	if !w.t.Failed() {
		w.until(w.wrong)
	}
}

// What end checks: the resources may not exceed their value before the test, the gauges must be 0, and every series of the counters must
// equal the sum over the test's requests.
var (
	resources = []string{"go_goroutines", "process_open_fds"}
	gauges    = []string{"proxy_requests_in_flight", "proxy_requests_queued", "proxy_held_body_bytes"}
	counters  = []string{"proxy_requests_total", "proxy_upstream_errors_total", "proxy_streams_total", "proxy_upstream_retries_total"}
)

// wrong lists what end finds wrong.
func (w *world) wrong(m binary.Metrics) string {
	var wrong []string
	for _, gauge := range gauges {
		if m[gauge] != 0 {
			wrong = append(wrong, fmt.Sprintf("%s is %v", gauge, m[gauge]))
		}
	}
	for _, gauge := range resources {
		if m[gauge] > w.before[gauge] {
			wrong = append(wrong, fmt.Sprintf("%s is %v, it was %v before the first request", gauge, m[gauge], w.before[gauge]))
		}
	}
	series := maps.Clone(w.expected)
	for name := range m {
		family, labels, _ := strings.Cut(name, "{")
		if slices.Contains(counters, family) {
			series[name] += 0
		}
		if family == "proxy_request_duration_seconds_count" { // counted once, with one status (contract row 2.8)
			status := strings.TrimSuffix(labels, "}")
			if told := m.Sum("proxy_requests_total", status); told != m[name] {
				wrong = append(wrong, fmt.Sprintf("%s is %v, but there were %v such requests", name, m[name], told))
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(series)) {
		if m[name] != series[name] {
			wrong = append(wrong, fmt.Sprintf("%s is %v, want %v", name, m[name], series[name]))
		}
	}
	return strings.Join(wrong, "; ")
}

func (w *world) scrape() binary.Metrics {
	w.t.Helper()
	m, err := w.p.Metrics()
	assert.NilError(w.t, err)
	return m
}

// until waits until wrong finds nothing wrong with the metrics.
func (w *world) until(wrong func(m binary.Metrics) string) {
	w.t.Helper()
	poll.WaitOn(w.t, func(poll.LogT) poll.Result {
		m, err := w.p.Metrics()
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
	w.until(func(m binary.Metrics) string {
		if m[gauge] == value {
			return ""
		}
		return fmt.Sprintf("%s is %v, it should become %v", gauge, m[gauge], value)
	})
}

// expect adds n to what a counter must show.
func (w *world) expect(n float64, format string, args ...any) {
	w.expected[fmt.Sprintf(format, args...)] += n
}

// logged waits for the line of a finished request. It finds it by the path, so every request of a test has another path.
func (w *world) logged(path string) binary.Line {
	w.t.Helper()
	return w.p.Line(w.t, "about a finished request for "+path, func(l binary.Line) bool { return l["path"] == path && l["outcome"] != nil })
}

// ended waits until a client's request has ended. It checks that it ended in one of the given ways, and that client, log and counters
// agree. It returns how it ended, and the log line.
func (w *world) ended(c *conn, want ...end) (end, binary.Line) {
	t := w.t
	t.Helper()
	var seen answer
	leaves := slices.Contains(want, left) || slices.Contains(want, leftWithin)
	if !leaves {
		seen = c.rest()
	}
	logged := w.logged(c.path)
	got, status := endOf(logged), int(logged["status"].(float64))
	assert.Assert(t, slices.Contains(want, got), "%s: got %s (the client saw %v), want %v: %v", c.path, got, seen, want, logged)
	if got == leftWithin {
		assert.Equal(t, status, 200, "%s: not the upstream's status", c.path)
	}
	if !leaves {
		whole := got != broken && got != silent
		if whole || seen.status != 0 { // if the answer is aborted soon, the client may not even get its headers
			assert.Equal(t, seen.status, status, "%s: client and log disagree", c.path)
		}
		assert.Assert(t, (seen.err == nil) == whole, "%s: %s, but the client saw %v", c.path, got, seen)
		ours := strings.Contains(seen.body, `"type":"proxy_error"`)
		assert.Equal(t, ours, whole && got != answered, "%s: %s, but the client got %v", c.path, got, seen)
		assert.Assert(t, !ours || !strings.Contains(seen.body, hush), "the upstream is quoted: %v", seen)
	}
	w.book(logged)
	return got, logged
}

// book adds an ended request to what the counters must show.
func (w *world) book(logged binary.Line) {
	method := logged["method"].(string)
	if !slices.Contains([]string{"GET", "HEAD", "POST", "OPTIONS", "CONNECT"}, method) {
		method = "OTHER" // contract section 5
	}
	w.expect(1, `proxy_requests_total{method=%q,status="%v"}`, method, logged["status"])
	switch got := endOf(logged); got {
	case answered:
		w.expect(1, `proxy_streams_total{outcome="complete"}`)
	case broken, silent, leftWithin:
		w.expect(1, `proxy_streams_total{outcome=%q}`, logged["outcome"])
	case failed:
		w.expect(1, `proxy_upstream_errors_total{error_type="connection"}`)
	case timedOut:
		w.expect(1, `proxy_upstream_errors_total{error_type="timeout"}`)
	case left:
	default: // our own refusals
		w.expect(1, `proxy_upstream_errors_total{error_type="invalid_request"}`)
	}
	for _, retry := range w.retries(logged) {
		previous := "may_have_been_read"
		if strings.Contains(retry["msg"].(string), "nothing of the request was sent") {
			previous = "nothing_sent"
		}
		w.expect(1, `proxy_upstream_retries_total{previous=%q}`, previous)
	}
}

// retries returns the log lines about a request's further attempts.
func (w *world) retries(logged binary.Line) (retries []binary.Line) {
	w.t.Helper()
	for _, l := range w.p.Lines(w.t) {
		if l["request_id"] == logged["request_id"] && l["attempt"] != nil {
			assert.Equal(w.t, l["level"], "WARN")
			retries = append(retries, l)
		}
	}
	assert.Assert(w.t, float64(len(retries)) == max(0, logged["attempts"].(float64)-1), "%v attempts, but these lines: %v", logged["attempts"], retries)
	return retries
}

// endOf returns how a request ended according to its log line.
func endOf(logged binary.Line) end {
	status := int(logged["status"].(float64))
	switch outcome := logged["outcome"]; {
	case outcome == "upstream_reset":
		return broken
	case outcome == "idle_timeout":
		return silent
	case outcome == "client_gone" && status == 499:
		return left
	case outcome == "client_gone":
		return leftWithin
	case outcome == "complete" && logged["error"] == nil:
		return answered
	case outcome == "complete":
		return end(strconv.Itoa(status))
	default:
		return end(fmt.Sprint("unknown outcome ", outcome))
	}
}

// bounded checks the process' peak memory, but not under the race detector, which multiplies it.
func (w *world) bounded(mib int64) {
	w.t.Helper()
	peak, err := binary.Status(w.p.PID(), "VmHWM")
	assert.NilError(w.t, err)
	w.t.Logf("peak memory: %d MiB", peak>>20)
	assert.Check(w.t, underRace() || peak>>20 < mib, "the process had %d MiB at its peak, want less than %d", peak>>20, mib)
}
