//go:build linux

package main

import (
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/pod"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// plan is one request: what its client sends and does, what the upstream does, and what the result must be.
type plan struct {
	standin.Part
	kind    string // its row in the report
	method  string
	size    int64 // of the body
	chunked bool  // without a declared length

	habit habit
	after time.Duration // until a client leaves, or how long it pauses
	seen  int           // the number of events that it reads first

	status int    // the wanted one; refused stands for any of the proxy's own 4xx
	own    string // what the proxy's own error must contain
	broken bool   // the answer must break off
}

// refused is for requests that the proxy refuses as the client's mistake.
const refused = 400

// habit is how a client behaves.
type habit string

const (
	polite          habit = "stays"
	leavesUploading habit = "leaves while uploading"
	leavesWaiting   habit = "leaves while waiting" // for the headers, or still in the queue
	leavesReading   habit = "leaves while reading"
	stallsUploading habit = "stalls while uploading"
	readsSlowly     habit = "reads slowly"
	pausesReading   habit = "pauses while reading"
)

// mix makes plans. A plan depends only on its name.
type mix struct {
	pod     pod.Pod
	timeout time.Duration
	pace    float64
}

func chance(name string) *rand.Rand {
	h := fnv.New64a()
	io.WriteString(h, name)
	return rand.New(rand.NewPCG(1, h.Sum64()))
}

func (m mix) plan(name, kind string) (plan, *rand.Rand) {
	r := chance(name)
	return plan{
		Part: standin.Part{Name: name}, kind: kind, method: http.MethodPost, size: between[int64](r, 200, 20*kib), chunked: r.IntN(2) == 0,
		habit: polite, status: http.StatusOK,
	}, r
}

// recipes are the kinds of single requests, with their share in percent.
var recipes = []struct {
	share float64
	kind  string
	make  func(m mix, r *rand.Rand, p *plan)
}{
	{41, "message", func(_ mix, r *rand.Rand, p *plan) { p.Size = between[int64](r, 200, 300*kib) }},
	{10, "GET", func(_ mix, _ *rand.Rand, p *plan) { p.method, p.size, p.chunked = http.MethodGet, 0, false }},
	{5, "HEAD", func(_ mix, _ *rand.Rand, p *plan) { p.method, p.size, p.chunked = http.MethodHead, 0, false }},
	{10, "upload", func(_ mix, r *rand.Rand, p *plan) { p.size = between[int64](r, 10*kib, 10*mib) }},
	{2, "upload of 10 MiB", func(_ mix, _ *rand.Rand, p *plan) { p.size = 10 * mib }},
	{0.5, "largest upload", func(m mix, _ *rand.Rand, p *plan) { p.size = m.pod.MaxBodyBytes }},
	{5, "slow answer", func(m mix, r *rand.Rand, p *plan) { p.Delay = between(r, m.timeout/20, m.timeout/2) }},
	{7, "error of the upstream", func(_ mix, r *rand.Rand, p *plan) { p.Status = []int{429, 529, 500}[r.IntN(3)]; p.status = p.Status }},
	{3, "early answer", func(_ mix, r *rand.Rand, p *plan) { p.Early, p.size = true, between[int64](r, 10*kib, 10*mib) }},
	{2, "dropped request", func(_ mix, _ *rand.Rand, p *plan) { p.End, p.status, p.own = standin.Cut, 502, "upstream" }},
	{2, "cut stream", func(_ mix, r *rand.Rand, p *plan) { shortStream(r, p); p.End, p.broken = standin.Cut, true }},
	{1, "silent stream", func(_ mix, r *rand.Rand, p *plan) { shortStream(r, p); p.End, p.broken = standin.Hang, true }},
	{1, "first attempt stalled", func(_ mix, _ *rand.Rand, p *plan) { p.Stalls = 1 }},
	{0.5, "all attempts stalled", func(m mix, _ *rand.Rand, p *plan) {
		p.End, p.status, p.own = standin.Hang, 504, fmt.Sprintf("(%d attempts)", 1+m.pod.Retries)
	}},
	{2, "client leaves uploading", func(_ mix, r *rand.Rand, p *plan) {
		p.habit, p.size = leavesUploading, between[int64](r, 200*kib, 10*mib)
	}},
	{3, "client leaves waiting", func(m mix, r *rand.Rand, p *plan) {
		p.habit, p.Delay, p.after = leavesWaiting, m.timeout/2, between(r, 50*time.Millisecond, m.timeout/8)
	}},
	{3, "client leaves reading", func(_ mix, r *rand.Rand, p *plan) {
		shortStream(r, p)
		p.habit, p.seen = leavesReading, r.IntN(p.Events)
	}},
	{0.5, "client stalls uploading", func(_ mix, r *rand.Rand, p *plan) {
		p.habit, p.size, p.status, p.own = stallsUploading, between[int64](r, 200*kib, 10*mib), refused, "body"
	}},
	{1, "slow reader", func(m mix, _ *rand.Rand, p *plan) { // 4 MiB in a little less than timeout_secs
		p.Events, p.Text, p.habit, p.after = 256, 16*kib, readsSlowly, m.timeout/300
	}},
	{0.5, "pausing reader", func(m mix, _ *rand.Rand, p *plan) { // more than all buffers on the way can hold
		p.Events, p.Text, p.habit, p.seen, p.after = 1024, 16*kib, pausesReading, 5, m.timeout/2
	}},
	{0.5, "too large", func(m mix, r *rand.Rand, p *plan) {
		p.size, p.status, p.own = m.pod.MaxBodyBytes+1+int64(r.IntN(mib)), refused, "too large"
	}},
}

// single plans a request of one of the recipes.
func (m mix) single(name string) plan {
	p, r := m.plan(name, "")
	x := 0.0
	for _, recipe := range recipes {
		x += recipe.share
	}
	x *= r.Float64()
	for _, recipe := range recipes {
		if x -= recipe.share; x < 0 {
			p.kind = recipe.kind
			recipe.make(m, r, &p)
			return p
		}
	}
	return p
}

// stream plans one of the streams that are always open. A tenth of them take two to five minutes, half 10 to 60 s, and the rest
// 1 to 5 s. A few end with a fault.
func (m mix) stream(name string) plan {
	p, r := m.plan(name, "stream")
	length := between(r, time.Second, 5*time.Second)
	switch x := r.Float64(); {
	case x < 0.1:
		length = between(r, 2*time.Minute, 5*time.Minute)
	case x < 0.6:
		length = between(r, 10*time.Second, time.Minute)
	}
	p.Every, p.Text = between(r, 50*time.Millisecond, m.timeout/5), int(between[int64](r, 20, 2*kib))
	p.Events = 1 + int(length/p.Every)
	switch x := r.Float64(); {
	case x < 0.02:
		p.End, p.broken = standin.Cut, true
	case x < 0.03:
		p.End, p.broken = standin.Hang, true
	case x < 0.06:
		p.habit, p.seen = leavesReading, r.IntN(p.Events)
	}
	return p
}

// burst plans one of the uploads that exceed the body budget together. A third of the clients leave while most wait for the budget.
func (m mix) burst(name string, size int64) plan {
	p, r := m.plan(name, "upload in a burst")
	p.size, p.Delay = size, between(r, m.timeout/40, m.timeout/10)
	if r.IntN(3) == 0 {
		p.kind, p.habit, p.after = "client leaves a burst", leavesWaiting, between(r, 50*time.Millisecond, m.timeout/20)
	}
	return p
}

// wave plans one of the streams that exceed the slots together, because none ends before all have begun. A tenth of the clients leave
// if they have no headers in time. These are the ones in the queue.
func (m mix) wave(name string) plan {
	p, r := m.plan(name, "stream in a wave")
	p.Events, p.Text, p.Every = 9, 200, m.waveLength()/4
	if r.IntN(10) == 0 {
		p.kind, p.habit, p.after = "client may leave a wave", leavesWaiting, between(r, m.waveLength()/10, m.waveLength())
	}
	return p
}

// waveLength is how long a wave opens streams, and then how long it keeps all slots in use.
func (m mix) waveLength() time.Duration { return m.timeout / 4 }

func shortStream(r *rand.Rand, p *plan) {
	p.Events, p.Every, p.Text = 5+r.IntN(20), between(r, 10*time.Millisecond, 200*time.Millisecond), 200
}

// between chooses a value so that every order of magnitude is equally likely.
func between[T int64 | time.Duration](r *rand.Rand, low, high T) T {
	return T(float64(low) * math.Pow(float64(high)/float64(low), r.Float64()))
}
