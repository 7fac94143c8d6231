//go:build linux

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

// figures are the proxy's metrics in the report, in its order. slack is how much a value may grow over the load; -1 means that it is
// not checked.
var figures = []struct {
	name   string
	metric string
	slack  float64
}{
	{"RSS, MiB", "process_resident_memory_bytes", -1},
	{"heap before the next collection, MiB", "go_memstats_next_gc_bytes", 16 * mib}, // twice the heap after the last collection (GOGC's default), or GOMEMLIMIT
	{"held body bytes", "proxy_held_body_bytes", 0},
	{"goroutines", "go_goroutines", 5}, // the runtime keeps a few
	{"descriptors", "process_open_fds", 5},
	{"in flight", "proxy_requests_in_flight", 0},
	{"queued", "proxy_requests_queued", 0},
}

// monitor scrapes the proxy, as Prometheus would, and reads the kernel's statistics.
type monitor struct {
	proxy *binary.Process
	group *binary.Cgroup // nil: no limit
	load  *load

	first, highest, last binary.Metrics // before, during and after the load
}

func (m *monitor) sample() binary.Metrics {
	metrics, err := m.proxy.Metrics()
	if err != nil {
		m.load.problem("%v", err)
	}
	for _, f := range figures {
		if _, ok := metrics[f.metric]; !ok && err == nil {
			m.load.problem("there is no metric %s", f.metric)
		}
	}
	return metrics
}

// watch takes samples until the load is over. If the proxy ends before, it stops the load.
func (m *monitor) watch(over <-chan struct{}, stop func()) {
	ticker := time.NewTicker(2 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-over:
			return
		case <-m.proxy.Done:
			stop()
			return
		}
		s := m.sample()
		for _, f := range figures {
			m.highest[f.metric] = max(m.highest[f.metric], s[f.metric])
		}
	}
}

// settle runs after the load. It closes all connections, waits until the proxy is as before, makes it collect its garbage, and ends it.
func (m *monitor) settle() {
	select {
	case <-m.proxy.Done:
		m.load.problem("the proxy ended in the middle of the load: %v", m.proxy.Well())
		return
	default:
	}
	m.leave()
	// Pooled objects survive one collection, and the first may have begun too early.
	const collections = "go_gc_duration_seconds_count"
	for n, until := 0, m.last[collections]+3; m.last[collections] < until && n < 50000; n++ {
		p, _ := m.load.plan(fmt.Sprintf("sweep-%d", n), "upload after the load")
		p.size = 64 * kib
		if m.load.do(p); n%50 == 0 {
			m.last = m.sample()
		}
	}
	m.leave()
	for _, name := range m.grown("") {
		m.load.problem("after the load: %s: %.0f, before it %.0f", name, m.last[name], m.first[name])
	}
	if err := m.proxy.End(); err != nil {
		m.load.problem("%v", err)
	}
	if err := m.proxy.Well(); err != nil {
		m.load.problem("%v", err)
	}
	m.compare()
}

// leave closes all connections, and waits until everything but the heap is as before the load.
func (m *monitor) leave() {
	m.load.client.Close()
	m.load.up.CloseConnections()
	for deadline := time.Now().Add(binary.Patience); ; time.Sleep(100 * time.Millisecond) {
		m.last = m.sample()
		if len(m.grown("go_memstats_next_gc_bytes")) == 0 || time.Now().After(deadline) {
			return
		}
	}
}

// grown lists the metrics that have grown since before the load, except one.
func (m *monitor) grown(but string) (grown []string) {
	for _, f := range figures {
		if f.slack >= 0 && f.metric != but && m.last[f.metric] > m.first[f.metric]+f.slack {
			grown = append(grown, f.metric)
		}
	}
	return grown
}

// compare checks that clients, counters and log agree.
func (m *monitor) compare() {
	l := m.load
	lines, err := m.proxy.Log()
	if err != nil {
		m.load.problem("%v", err)
	}
	logged := 0
	for _, line := range lines {
		if line["msg"] == "request" {
			logged++
		} else if line["level"] == "ERROR" {
			m.load.problem("the proxy logged %v", line)
		}
	}
	total := int(m.last.Sum("proxy_requests_total"))
	check := func(what string, got, low, high int) {
		if got < low || got > high {
			m.load.problem("%s: %d, want %d to %d", what, got, low, high)
		}
	}
	unsure := l.all - l.certain
	check("proxy_requests_total", total, l.certain, l.all)
	check("requests in the log", logged, total, total)
	check("504s in the counters", int(m.last.Sum("proxy_upstream_errors_total", `error_type="timeout"`)), l.statuses[504], l.statuses[504]+unsure)
	check("502s in the counters", int(m.last.Sum("proxy_upstream_errors_total", `error_type="connection"`)), l.statuses[502], l.statuses[502]+unsure)
	check("POSTs that reached the upstream", l.up.Posts(), 1, l.posts+int(m.last.Sum("proxy_upstream_retries_total")))
}

// report prints everything as Markdown, and returns an error if anything was not as planned.
func (m *monitor) report(out io.Writer, title string) error {
	l := m.load
	limit, peak := "no memory limit", m.highest["process_resident_memory_bytes"]
	if m.group != nil {
		limit, peak = "limit "+m.group.String(), float64(m.group.Peak())
		if kills := m.group.Kills(); kills != 0 {
			m.load.problem("the kernel killed %d processes for want of memory", kills)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(out, "## %s\n\n%s; %s, peak %.0f MiB.\n\n| Of the proxy | before | highest | after |\n|---|--:|--:|--:|\n", title,
		strings.Join(l.pod.Env, " "), limit, peak/mib)
	for _, f := range figures {
		unit := 1.0
		if strings.HasSuffix(f.name, "MiB") {
			unit = mib
		}
		fmt.Fprintf(out, "| %s | %.0f | %.0f | %.0f |\n", f.name, m.first[f.metric]/unit, m.highest[f.metric]/unit, m.last[f.metric]/unit)
	}
	fmt.Fprint(out, "\n| Kind | requests |\n|---|--:|\n")
	for _, kind := range slices.Sorted(maps.Keys(l.kinds)) {
		fmt.Fprintf(out, "| %s | %d |\n", kind, l.kinds[kind])
	}
	fmt.Fprintln(out)
	if len(l.problems) > 0 {
		fmt.Fprintf(out, "- %s\n", strings.Join(l.problems[:min(len(l.problems), 20)], "\n- "))
		return fmt.Errorf("%d problems, see above", len(l.problems))
	}
	fmt.Fprintln(out, "All ended as planned, and nothing has grown.")
	return nil
}
