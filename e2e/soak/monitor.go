package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	sampleEvery   = 2 * time.Second
	progressEvery = 30 * time.Second
)

// sample is the proxy at one moment.
type sample struct {
	at          time.Duration // since the monitor began
	memory, rss int64         // what the kernel counts against the limit, and the process' own share
	live        int64         // what Go's last collection left on the heap
	collections int
	goroutines  int
	descriptors int
	held        int64
	inFlight    int
	queued      int
}

// monitor asks the proxy how it is, as a kubelet and Prometheus would, and the kernel.
type monitor struct {
	proxy    *proxy
	group    *cgroup
	tally    *tally
	progress io.Writer
	begun    time.Time

	first    sample   // before the load
	samples  []sample // during it
	last     sample   // after it
	counters counters // after it
	served   int      // after it, by /health
	errors   int
	loadEnd  time.Duration
	peak     int64 // of the cgroup
	rssPeak  int64
	kills    int64
	gone     bool // it ended in the middle of the load
	exit     error
}

// scraper opens a connection for every request: what it finds must not depend on its own last visit.
var scraper = &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}

// baseline is what everything must return to.
func (m *monitor) baseline() {
	m.first = m.sample()
	if s := m.first; s.memory == 0 || s.rss == 0 || s.live == 0 || s.goroutines == 0 || s.descriptors == 0 {
		m.tally.problem("before the load: some of the figures cannot be read: %+v", s)
	}
}

// sample looks once; what does not answer is a problem, and leaves zeros.
func (m *monitor) sample() sample {
	s := sample{memory: m.group.usage(), rss: m.proxy.status("VmRSS"), descriptors: m.proxy.descriptors()}
	m.health()
	c, err := scrape(m.proxy.url)
	if err != nil {
		m.tally.problem("/metrics: %v", err)
	}
	m.counters = c
	// The next collection is due at twice what the last has left (GOGC's default), or at GOMEMLIMIT.
	s.collections = int(c["go_gc_duration_seconds_count"])
	s.live, s.goroutines = int64(c["go_memstats_next_gc_bytes"])/2, int(c["go_goroutines"])
	s.held, s.inFlight, s.queued = int64(c["proxy_held_body_bytes"]), int(c["proxy_requests_in_flight"]), int(c["proxy_requests_queued"])
	s.at = time.Since(m.begun)
	return s
}

func (m *monitor) health() {
	resp, err := scraper.Get(m.proxy.url + "/health")
	if err != nil {
		m.tally.problem("/health: %v", err)
		return
	}
	defer resp.Body.Close()
	var health struct {
		Status string `json:"status"`
		Served int    `json:"requests_served"`
		Errors int    `json:"errors_total"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&health); err != nil || resp.StatusCode != http.StatusOK || health.Status != "healthy" {
		m.tally.problem("/health: %s, status %q, %v", resp.Status, health.Status, err)
	}
	m.served, m.errors = health.Served, health.Errors
}

// watch samples until the load is over, and reports whether the proxy is still there.
func (m *monitor) watch(over <-chan struct{}) bool {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	said := time.Now()
	for {
		select {
		case <-ticker.C:
		case <-over:
			m.loadEnd = time.Since(m.begun)
			return true
		case <-m.proxy.done:
			m.loadEnd = time.Since(m.begun)
			m.gone = true
			m.tally.problem("the proxy has ended in the middle of the load: %v", m.proxy.cmd.ProcessState)
			return false
		}
		s := m.sample()
		m.samples = append(m.samples, s)
		if time.Since(said) >= progressEvery {
			said = time.Now()
			m.say(s)
		}
	}
}

func (m *monitor) say(s sample) {
	requests, explained, unexplained, open := m.tally.sums()
	fmt.Fprintf(m.progress, "soak: %v: %d requests (%d open), %d explained failures, %d unexplained; memory %d MiB (peak %d), RSS %d; "+
		"%d goroutines, %d descriptors; in flight %d, queued %d, held %d KiB\n",
		s.at.Round(time.Second), requests, open, explained, unexplained, s.memory>>20, m.group.peak()>>20, s.rss>>20,
		s.goroutines, s.descriptors, s.inFlight, s.queued, s.held>>10)
}

// slack is how many goroutines or descriptors more than before the load are no growth: the runtime keeps a few.
const slack = 5

// settle waits, after the load and with all connections closed, for the proxy to be as it was before.
func (m *monitor) settle() {
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		m.last = m.sample()
		if m.last.quiet(m.first) || time.Now().After(deadline) {
			break
		}
	}
	m.rssPeak = m.proxy.status("VmHWM")
}

func (s sample) quiet(first sample) bool {
	return s.goroutines <= first.goroutines+slack && s.descriptors <= first.descriptors+slack && s.held == 0 && s.inFlight == 0 && s.queued == 0
}

// end notes how the proxy ended, once it has.
func (m *monitor) end(exit error) {
	m.kills, m.exit, m.peak = m.group.kills(), exit, m.group.peak()
	for _, s := range m.samples { // the kernel may not say
		m.peak, m.rssPeak = max(m.peak, s.memory), max(m.rssPeak, s.rss)
	}
}

// counters are what /metrics shows, by the series as it is written there.
type counters map[string]float64

func scrape(url string) (counters, error) {
	resp, err := scraper.Get(url + "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", resp.Status)
	}
	if err != nil {
		return nil, err
	}
	c := counters{}
	for line := range strings.Lines(string(text)) {
		series, value, found := strings.Cut(strings.TrimSpace(line), "} ")
		if found {
			series += "}"
		} else {
			series, value, _ = strings.Cut(strings.TrimSpace(line), " ")
		}
		if n, err := strconv.ParseFloat(value, 64); err == nil {
			c[series] = n
		}
	}
	return c, nil
}

// sum adds all series of a metric, if their labels contain the given one.
func (c counters) sum(metric, label string) int {
	total := 0.0
	for series, value := range c {
		if name, labels, _ := strings.Cut(series, "{"); name == metric && strings.Contains(labels, label) {
			total += value
		}
	}
	return int(total)
}
