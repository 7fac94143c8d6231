package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"
)

// report puts together what was seen, and says whether it is good.
type report struct {
	settings settings
	pod      pod
	group    *cgroup
	monitor  *monitor
	tally    *tally
	upstream *upstream

	comparisons []comparison
	floors      floors
}

// write prints the report as Markdown and returns an error if anything is not as it should be.
func (r *report) write(out io.Writer) error {
	t, m := r.tally, r.monitor
	logged, _ := m.proxy.logged()
	r.comparisons = t.comparisons(m.counters, m.served, m.errors, logged)
	r.floors = r.settings.floors(m.samples)
	r.findProblems()
	requests, explained, unexplained, _ := t.sums()
	fmt.Fprintf(out, "## Soak: %v, seed %d, %s, %d streams, %g other requests/s\n\n", m.loadEnd.Round(time.Second), r.settings.seed,
		r.settings.protocol, r.settings.streams, r.settings.rate)
	fmt.Fprintf(out, "k8s/config.toml with timeout_secs = %d; %s; limit %s.\n\n", r.settings.timeout/time.Second, strings.Join(r.pod.env, " "), r.group)

	table(out, "Figure", "Value")
	row(out, "requests", requests)
	row(out, "streams", t.streams)
	row(out, "events", t.events)
	row(out, "events there within 10 ms", fmt.Sprintf("%.2f %%, the slowest after %v", 100*float64(t.delays.fast)/float64(max(1, t.delays.all)), t.delays.slowest.Round(time.Millisecond)))
	row(out, "response bytes", fmt.Sprintf("%d MiB", t.bytes>>20))
	row(out, "failures, explained", explained)
	row(out, "unexplained", unexplained)
	row(out, "retries", m.counters.sum("proxy_upstream_retries_total", ""))
	row(out, "connections the upstream asked us off / reset", fmt.Sprintf("%d / %d", r.upstream.hangups.Load(), len(r.upstream.book.resets)))
	row(out, "CPU of the proxy / of the soak", fmt.Sprintf("%s / %s of a core", share(m.counters["process_cpu_seconds_total"], m.loadEnd), share(ownCPU(), m.loadEnd)))
	row(out, "killed for want of memory", m.kills)

	fmt.Fprintln(out)
	table(out, "Of the proxy", "start", "peak", "end")
	row(out, "memory in the cgroup, MiB", mebi(m.first.memory), mebi(m.peak), mebi(m.last.memory))
	row(out, "RSS, MiB", mebi(m.first.rss), mebi(m.rssPeak), mebi(m.last.rss))
	row(out, "live heap, MiB", mebi(m.first.live), mebi(m.highest(func(s sample) int64 { return s.live })), mebi(m.last.live))
	row(out, "goroutines", m.first.goroutines, m.highest(func(s sample) int64 { return int64(s.goroutines) }), m.last.goroutines)
	row(out, "descriptors", m.first.descriptors, m.highest(func(s sample) int64 { return int64(s.descriptors) }), m.last.descriptors)
	row(out, "held body bytes, MiB", mebi(m.first.held), mebi(m.highest(func(s sample) int64 { return s.held })), mebi(m.last.held))
	row(out, "requests in flight", m.first.inFlight, m.highest(func(s sample) int64 { return int64(s.inFlight) }), m.last.inFlight)
	row(out, "requests queued", m.first.queued, m.highest(func(s sample) int64 { return int64(s.queued) }), m.last.queued)
	if r.judgesFloors() {
		fmt.Fprintf(out, "\n%s\n\n", r.floors)
	} else {
		fmt.Fprintf(out, "\nMemory under load is not judged: less than %v of load are too short for that.\n\n", shortestRun)
	}

	table(out, "Cause", "Failures")
	for _, cause := range slices.Sorted(maps.Keys(t.causes)) {
		row(out, cause, t.causes[cause])
	}
	fmt.Fprintln(out)
	table(out, "Kind", "requests", "whole", "explained", "unexplained")
	for _, kind := range slices.Sorted(maps.Keys(t.kinds)) {
		k := t.kinds[kind]
		row(out, kind, k.requests, k.whole, k.explained, k.unexplained)
	}
	fmt.Fprintln(out)
	table(out, "Counter of the proxy", "says", "by the clients")
	for _, c := range r.comparisons {
		row(out, c.what, c.got, c.want)
	}
	fmt.Fprintln(out)
	for _, problem := range append(t.problems, t.failures...) {
		fmt.Fprintf(out, "- %s\n", problem)
	}
	if t.unexpected > 0 {
		return fmt.Errorf("%d unexplained", t.unexpected)
	}
	fmt.Fprintln(out, "Nothing is unexplained, and nothing has grown.")
	return nil
}

// findProblems adds what shows only at the end.
func (r *report) findProblems() {
	t, m := r.tally, r.monitor
	if m.kills != 0 {
		t.problem("the kernel killed %d processes for want of memory", m.kills)
	}
	if m.exit != nil {
		t.problem("%v", m.exit)
	}
	if _, strange := m.proxy.logged(); len(strange) > 0 {
		t.problem("the proxy logged %d lines that are not foreseen; the first:\n  %s", len(strange), strings.Join(strange[:min(len(strange), maxFailures)], "\n  "))
	}
	for _, text := range r.upstream.book.strange {
		t.problem("%s", text)
	}
	if m.gone {
		return // nothing else is to be expected of it
	}
	for _, c := range r.comparisons {
		if !c.agrees() {
			t.problem("%s: the proxy says %d, the clients say %v", c.what, c.got, c.want)
		}
	}
	if !m.last.quiet(m.first) {
		t.problem("after the load, with all connections closed: %d goroutines (%d before), %d descriptors (%d), %d bytes held, %d requests in flight, %d queued",
			m.last.goroutines, m.first.goroutines, m.last.descriptors, m.first.descriptors, m.last.held, m.last.inFlight, m.last.queued)
	}
	if m.last.live > m.first.live+finalMargin {
		t.problem("after the load, %s MiB are alive on the heap, %s MiB before it", mebi(m.last.live), mebi(m.first.live))
	}
	if r.judgesFloors() {
		for _, text := range r.floors.growth() {
			t.problem("%s", text)
		}
	}
	if requests, _, _, open := t.sums(); requests == 0 || open != 0 {
		t.problem("%d requests were made, %d are still open", requests, open)
	}
}

func (r *report) judgesFloors() bool { return r.monitor.loadEnd >= shortestRun }

// highest is the most that a figure was during the load.
func (m *monitor) highest(figure func(sample) int64) int64 {
	highest := int64(0)
	for _, s := range m.samples {
		highest = max(highest, figure(s))
	}
	return highest
}

func table(out io.Writer, columns ...string) {
	fmt.Fprintf(out, "| %s |\n|%s|\n", strings.Join(columns, " | "), strings.TrimSuffix(strings.Repeat(" --- |", len(columns)), "|"))
}

func row(out io.Writer, cells ...any) {
	for _, cell := range cells {
		fmt.Fprintf(out, "| %v ", cell)
	}
	fmt.Fprintln(out, "|")
}

func share(seconds float64, of time.Duration) string {
	return fmt.Sprintf("%.0f %%", 100*seconds/of.Seconds())
}

// ownCPU is how many seconds of it this process has used.
func ownCPU() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

func mebi(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/mib) }
