package main

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// A run of 20 minutes: bursts need 200 MiB and streams 60, of which 20 are alive.
func TestFloors(t *testing.T) {
	run := settings{minutes: 20}
	samples := func(leak int64) (list []sample) {
		for at := time.Duration(0); at < 21*time.Minute; at += sampleEvery {
			s := sample{at: at, memory: 200 * mib, live: 90 * mib}
			if half, lull := run.inLull(at); lull {
				s.memory, s.live = (60+leak*int64(half))*mib, (20+leak*int64(half))*mib
			}
			list = append(list, s)
		}
		return list
	}
	steady := run.floors(samples(0))
	assert.Equal(t, steady, floors{memory: [2]int64{60 * mib, 60 * mib}, heap: [2]int64{20 * mib, 20 * mib}})
	assert.Equal(t, len(steady.growth()), 0)
	assert.Equal(t, len(run.floors(samples(10)).growth()), 1)
	assert.Equal(t, len(run.floors(samples(20)).growth()), 2)
	assert.Equal(t, len(run.floors(samples(0)[:300]).growth()), 2, "the second half was not looked at")
}

func TestLulls(t *testing.T) {
	run := settings{minutes: 20}
	for at, want := range map[time.Duration]struct {
		half int
		lull bool
	}{
		time.Minute:      {0, false},
		9 * time.Minute:  {0, true},
		11 * time.Minute: {1, false},
		19 * time.Minute: {1, true},
		20 * time.Minute: {1, false},
	} {
		half, lull := run.inLull(at)
		assert.Check(t, half == want.half && lull == want.lull, "after %v: %d, %v", at, half, lull)
	}
}

func TestQuiet(t *testing.T) {
	before := sample{goroutines: 9, descriptors: 11}
	assert.Check(t, sample{goroutines: 9 + slack, descriptors: 11}.quiet(before))
	for _, after := range []sample{
		{goroutines: 10 + slack}, {descriptors: 12 + slack}, {held: 1}, {inFlight: 1}, {queued: 1},
	} {
		assert.Check(t, !after.quiet(before), "%+v", after)
	}
}

func TestComparisons(t *testing.T) {
	seen := newTally(t.Output())
	p := plan{name: "test-1", kind: "test", method: "POST", deed: answers, status: 200}
	seen.count(p, result{status: 200, sent: sent}, verdict{}, facts{arrivals: 1}, 0)
	seen.count(p, result{left: true, sent: maybeSent}, verdict{}, facts{}, 0)
	p.deed = stalls
	p.retries = 2
	seen.count(p, result{status: 504, sent: sent, text: `"type":"proxy_error"`}, verdict{}, facts{arrivals: 3}, 0)
	says := counters{
		`proxy_requests_total{method="POST",status="200"}`:  1,
		`proxy_requests_total{method="POST",status="499"}`:  1, // or not: it is not known whether that request arrived
		`proxy_requests_total{method="POST",status="504"}`:  1,
		`proxy_upstream_errors_total{error_type="timeout"}`: 1,
		`proxy_upstream_retries_total`:                      2,
	}
	disagreeing := func(served, errors, logged int) (list []string) {
		for _, c := range seen.comparisons(says, served, errors, logged) {
			if !c.agrees() {
				list = append(list, c.what)
			}
		}
		return list
	}
	assert.Check(t, is.Len(disagreeing(3, 1, 3), 0))
	assert.Check(t, is.Len(disagreeing(2, 1, 3), 0))
	assert.Check(t, is.Len(disagreeing(1, 2, 4), 3))
	for series := range says {
		says[series] += 2
		assert.Check(t, len(disagreeing(3, 1, 3)) > 0, "%s", series)
		says[series] -= 2
	}
	says[`proxy_streams_total{outcome="drained"}`] = 1
	assert.Check(t, is.DeepEqual(disagreeing(3, 1, 3), []string{`streams_total{outcome="drained"}`}))
}

// What arrives for a client that is not waiting is noticed, unless that client left.
func TestStrangeArrivals(t *testing.T) {
	book, l := newLedger(1, mib), &link{entries: map[*entry]bool{}}
	for _, name := range []string{"answered", "left"} {
		e := book.open(plan{name: name})
		book.arrive(name, l)
		book.depart(e)
		book.close(e, name == "answered")
	}
	book.arrive("left", l)
	assert.Equal(t, len(book.strange), 0)
	book.arrive("answered", l)
	book.arrive("unheard of", l)
	assert.Equal(t, len(book.strange), 2)
}

func TestLog(t *testing.T) {
	var p proxy
	listening := make(chan string, 1)
	for _, line := range []string{
		`{"level":"INFO","msg":"running","state":"running","addr":"127.0.0.1:1"}`,
		`{"level":"INFO","msg":"request","status":200}`,
		`{"level":"WARN","msg":"request","status":502}`,
		`{"level":"WARN","msg":"retry: the upstream may have run the request already"}`,
	} {
		p.line(line+"\n", listening)
	}
	requests, strange := p.logged()
	assert.Equal(t, requests, 2)
	assert.Equal(t, len(strange), 0)
	assert.Equal(t, <-listening, "127.0.0.1:1")
	for n, line := range []string{`{"level":"WARN","msg":"http: panic serving"}`, `{"level":"ERROR","msg":"cannot serve"}`, "panic: no", ""} {
		p.line(line+"\n", listening)
		_, strange := p.logged()
		assert.Equal(t, len(strange), n+1)
	}
}
