package main

import (
	"math"
	"math/rand/v2"
	"net/http"
	"time"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// mix makes plans. A plan depends on the seed and its name only.
type mix struct {
	settings settings
	pod      pod
}

func (m mix) random(name string) *rand.Rand {
	return rand.New(rand.NewPCG(m.settings.seed, hash(name)))
}

// recipe is one kind of single request, and how many of a hundred they are.
type recipe struct {
	share float64
	make  func(m mix, r *rand.Rand, p *plan)
}

var recipes = []recipe{
	{29, func(m mix, r *rand.Rand, p *plan) { p.kind, p.size = "message", between(r, 200, 20*kib) }},
	{12, func(m mix, r *rand.Rand, p *plan) {
		p.kind, p.path, p.size = "count_tokens", "/v1/messages/count_tokens", between(r, 200, 20*kib)
	}},
	{10, func(m mix, r *rand.Rand, p *plan) { p.kind, p.method, p.path = "models", http.MethodGet, "/v1/models" }},
	{5, func(m mix, r *rand.Rand, p *plan) {
		p.kind, p.method, p.path = "models, HEAD", http.MethodHead, "/v1/models"
	}},
	{6, func(m mix, r *rand.Rand, p *plan) {
		p.kind, p.size = "upload, declared", between(r, 10*kib, m.pod.maxBodyBytes)
	}},
	{6, func(m mix, r *rand.Rand, p *plan) {
		p.kind, p.size, p.chunked = "upload, chunked", between(r, 10*kib, m.pod.maxBodyBytes), true
	}},
	{5, func(m mix, r *rand.Rand, p *plan) {
		p.kind, p.size, p.delay = "slow answer", 2*kib, duration(r, m.settings.timeout/20, m.settings.timeout/2)
	}},
	{7, func(m mix, r *rand.Rand, p *plan) {
		p.kind, p.size = "error of the upstream", 2*kib
		p.status = []int{http.StatusTooManyRequests, 529, http.StatusInternalServerError}[r.IntN(3)]
	}},
	{3, func(m mix, r *rand.Rand, p *plan) {
		p.kind, p.size, p.deed, p.status = "early answer", between(r, 10*kib, m.pod.maxBodyBytes), early, http.StatusTooManyRequests
	}},
	{2, func(m mix, r *rand.Rand, p *plan) { p.kind, p.size, p.deed = "dropped request", 2*kib, drops }},
	{2, func(m mix, r *rand.Rand, p *plan) { shortStream(r, p, "cut stream"); p.ending = cut }},
	{1, func(m mix, r *rand.Rand, p *plan) { shortStream(r, p, "silent stream"); p.ending = silence }},
	{1, func(m mix, r *rand.Rand, p *plan) {
		p.kind, p.size, p.deed = "first attempt stalled", 2*kib, stallsOnce
	}},
	{0.5, func(m mix, r *rand.Rand, p *plan) { p.kind, p.size, p.deed = "all attempts stalled", 2*kib, stalls }},
	{2, func(m mix, r *rand.Rand, p *plan) {
		p.kind, p.habit, p.size, p.chunked = "client leaves uploading", leavesUploading, between(r, 200*kib, m.pod.maxBodyBytes), r.IntN(2) == 0
	}},
	{3, func(m mix, r *rand.Rand, p *plan) {
		p.kind, p.habit, p.size = "client leaves waiting", leavesWaiting, 2*kib
		p.delay, p.after = m.settings.timeout/2, duration(r, 50*time.Millisecond, m.settings.timeout/8)
	}},
	{3, func(m mix, r *rand.Rand, p *plan) {
		shortStream(r, p, "client leaves reading")
		p.habit, p.seen = leavesReading, r.IntN(p.events)
	}},
	{0.5, func(m mix, r *rand.Rand, p *plan) {
		p.kind, p.habit, p.size, p.chunked = "client stalls uploading", stallsUploading, between(r, 200*kib, m.pod.maxBodyBytes), r.IntN(2) == 0
	}},
	{1, func(m mix, r *rand.Rand, p *plan) { // 4 MiB in a little less than timeout_secs
		bigStream(p, "slow reader", 256)
		p.habit, p.after = readsSlowly, m.settings.timeout/300
	}},
	{0.5, func(m mix, r *rand.Rand, p *plan) { // more than the buffers on the way hold, so that the upstream has to wait, too
		bigStream(p, "pausing reader", 1024)
		p.habit, p.seen, p.after = pausesReading, 5, m.settings.timeout*3/2
	}},
	{0.5, func(m mix, r *rand.Rand, p *plan) {
		p.kind, p.tooLarge, p.size, p.chunked = "too large", true, m.pod.maxBodyBytes+1+int64(r.IntN(mib)), r.IntN(2) == 0
	}},
}

func (m mix) base(name, kind string) plan {
	return plan{name: name, kind: kind, method: http.MethodPost, path: "/v1/messages", deed: answers, status: http.StatusOK, retries: m.pod.retries}
}

// single is a request of any kind but a long stream.
func (m mix) single(name string) plan {
	r, p := m.random(name), m.base(name, "")
	total := 0.0
	for _, recipe := range recipes {
		total += recipe.share
	}
	x := r.Float64() * total
	for _, recipe := range recipes {
		if x -= recipe.share; x < 0 {
			recipe.make(m, r, &p)
			break
		}
	}
	return p
}

// stream is one of those that are always open: a tenth of two to five minutes, half of 10 to 60 s, the rest short. Every
// tenth is silent but for pings, and a few come to a bad end.
func (m mix) stream(name string) plan {
	r, p := m.random(name), m.base(name, "stream")
	p.deed, p.size = streams, between(r, 200, 100*kib)
	length := duration(r, time.Second, 5*time.Second)
	switch x := r.Float64(); {
	case x < 0.1:
		length = duration(r, 2*time.Minute, 5*time.Minute)
	case x < 0.6:
		length = duration(r, 10*time.Second, time.Minute)
	}
	if r.IntN(10) == 0 {
		p.kind, p.every = "stream of pings", duration(r, m.settings.timeout/4, m.settings.timeout/2)
	} else {
		p.every, p.text = duration(r, 50*time.Millisecond, 2*time.Second), int(between(r, 20, 2*kib))
	}
	p.events = 1 + int(length/p.every)
	switch x := r.Float64(); {
	case x < 0.02:
		p.ending = cut
	case x < 0.03:
		p.ending = silence
	case x < 0.06:
		p.habit, p.seen = leavesReading, r.IntN(p.events)
	}
	return p
}

// burst is one of the uploads that are too many at once: without a declared length each takes room for the largest. A third
// of the clients leaves while most of them wait for that room.
func (m mix) burst(name string) plan {
	r, p := m.random(name), m.base(name, "upload in a burst")
	p.size, p.chunked, p.delay = between(r, m.pod.maxBodyBytes/2, m.pod.maxBodyBytes), true, duration(r, m.settings.timeout/40, m.settings.timeout/10)
	if r.IntN(3) == 0 {
		p.kind, p.habit, p.after = "client leaves a burst", leavesWaiting, duration(r, 50*time.Millisecond, m.settings.timeout/20)
	}
	return p
}

// wave is one of the streams that are too many at once. A tenth of the clients leaves after a while if it does not have the
// headers by then; that is, if it is among those that are queued.
func (m mix) wave(name string, over <-chan struct{}) plan {
	r, p := m.random(name), m.base(name, "stream in a wave")
	p.deed, p.size, p.every, p.text, p.ending, p.over = streams, 2*kib, m.settings.timeout/4, 200, together, over
	if r.IntN(10) == 0 {
		p.kind, p.habit, p.after = "client may leave a wave", leavesWaiting, duration(r, waveLength/10, waveLength)
	}
	return p
}

// waveLength is how long a wave keeps all slots taken.
const waveLength = 5 * time.Second

// sweep is a small upload, see load.sweep.
func (m mix) sweep(name string) plan {
	p := m.base(name, "upload after the load")
	p.size = 32 * kib
	return p
}

func shortStream(r *rand.Rand, p *plan, kind string) {
	p.kind, p.size, p.deed = kind, 2*kib, streams
	p.events, p.every, p.text = 5+r.IntN(20), duration(r, 10*time.Millisecond, 200*time.Millisecond), 200
}

// bigStream comes as fast as it is taken.
func bigStream(p *plan, kind string, events int) {
	p.kind, p.size, p.deed, p.events, p.text = kind, 2*kib, streams, events, 16*kib
}

// between and duration choose so that every order of magnitude is as likely.
func between(r *rand.Rand, low, high int64) int64 {
	return int64(float64(low) * math.Pow(float64(high)/float64(low), r.Float64()))
}

func duration(r *rand.Rand, low, high time.Duration) time.Duration {
	return time.Duration(between(r, int64(low), int64(high)))
}
