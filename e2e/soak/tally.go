package main

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// tally is what the clients have seen, all together.
type tally struct {
	out io.Writer // problems are printed as they come

	mu         sync.Mutex
	open       int
	kinds      map[string]*kindCount
	causes     map[string]int
	unexpected int
	problems   []string // of the run
	failures   []string // of requests, the first of them
	events     int
	bytes      int64
	streams    int
	delays     delays

	requests map[string]*interval   // that the proxy has counted, by method
	answers  map[answered]*interval // and by status
	own      map[int]*interval      // its own errors by status
	silent   interval               // streams that the proxy ended for silence
	retries  interval
}

type kindCount struct{ requests, whole, explained, unexplained int }

// statusLeft is what the proxy counts a request as whose client left (contract row 2.8). No client sees it.
const statusLeft = 499

type answered struct {
	method string
	status int
}

// interval is a number that is not known exactly: where two causes meet, either may win.
type interval struct{ low, high int }

func note[K comparable](counts map[K]*interval, key K, certain bool) {
	if counts[key] == nil {
		counts[key] = &interval{}
	}
	counts[key].add(1, certain)
}

func (i *interval) add(n int, certain bool) {
	i.high += n
	if certain {
		i.low += n
	}
}

// maxFailures is how many requests are told of; more of them tell nothing new.
const maxFailures = 20

func newTally(out io.Writer) *tally {
	return &tally{
		out: out, kinds: map[string]*kindCount{}, causes: map[string]int{},
		requests: map[string]*interval{}, answers: map[answered]*interval{}, own: map[int]*interval{},
	}
}

// problem notes something unexplained that is not about one request.
func (t *tally) problem(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	t.unexpected++
	t.problems = append(t.problems, text)
	fmt.Fprintln(t.out, "unexplained:", text)
}

func (t *tally) failure(text string) {
	t.unexpected++
	if len(t.failures) < maxFailures {
		t.failures = append(t.failures, text)
		fmt.Fprintln(t.out, "unexplained:", text)
	}
}

// begin notes that a request is on its way; the returned function notes what came of it.
func (t *tally) begin(p plan) func(result, verdict, facts) {
	begun := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open++
	return func(res result, v verdict, f facts) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.open--
		t.count(p, res, v, f, time.Since(begun))
	}
}

// sums returns how many requests came to an end, how many of them failed, and how many are on their way.
func (t *tally) sums() (requests, explained, unexplained, open int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, k := range t.kinds {
		requests += k.requests
		explained += k.explained
	}
	return requests, explained, t.unexpected, t.open
}

func (t *tally) count(p plan, res result, v verdict, f facts, took time.Duration) {
	kind := t.kinds[p.kind]
	if kind == nil {
		kind = &kindCount{}
		t.kinds[p.kind] = kind
	}
	kind.requests++
	switch {
	case v.problem != "":
		kind.unexplained++
		t.failure(fmt.Sprintf("%s\n  %s\n  got, after %v: %s; the upstream saw %d attempts", v.problem, p, took.Round(time.Millisecond), res, f.arrivals))
	case v.cause != "":
		kind.explained++
		t.causes[v.cause]++
	default:
		kind.whole++
	}
	t.events += res.events
	t.bytes += res.bytes
	if p.deed == streams && res.status == http.StatusOK {
		t.streams++
	}
	for _, d := range res.delays {
		t.delays.add(d)
	}

	t.expect(p, res, f)
}

// expect notes what the proxy's counters must say. Where a client left, the answer may have been complete already, or, if its
// connection was reset, an error of the proxy's own on its way.
func (t *tally) expect(p plan, res result, f facts) {
	if res.sent != unsent {
		note(t.requests, p.method, res.sent == sent)
	}
	switch {
	case !res.left:
		note(t.answers, answered{p.method, res.status}, true)
		if isOwnError(res) {
			note(t.own, res.status, true)
		}
	default:
		status := res.status
		if status == 0 {
			status = p.want(time.Second).status
		}
		note(t.answers, answered{p.method, status}, false)
		note(t.answers, answered{p.method, statusLeft}, false)
		if f.reset {
			note(t.answers, answered{p.method, http.StatusBadGateway}, false)
			note(t.own, http.StatusBadGateway, false)
		}
	}
	if p.ending == silence && res.status == http.StatusOK {
		t.silent.add(1, !f.reset)
	}
	if p.deed == stalls || p.deed == stallsOnce {
		t.retries.add(p.want(time.Second).attempts-1, !f.reset)
	}
}

// delays counts how long events were on their way.
type delays struct {
	all, fast int // fast: within 10 ms
	slowest   time.Duration
}

func (d *delays) add(delay time.Duration) {
	d.all++
	if delay <= 10*time.Millisecond {
		d.fast++
	}
	d.slowest = max(d.slowest, delay)
}
