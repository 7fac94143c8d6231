//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

const (
	streams = 300 // open at a time
	rate    = 10  // other requests a second
)

// load is everything that happens to the proxy, and what its clients saw of it.
type load struct {
	mix
	up       *standin.Server
	client   *client.Client
	body     []byte // of which every request sends the beginning
	progress io.Writer

	mu       sync.Mutex
	kinds    map[string]int // requests
	problems []string
	statuses map[int]int // of the proxy's own errors
	// Of these the proxy has seen some, but perhaps not all: the client may have left too soon.
	certain, all, posts int
}

// run loads the proxy until the time is over, ctx ends, or the proxy is gone. Then it starts nothing more, and returns when
// every request has come to its own end.
func (l *load) run(ctx context.Context, length time.Duration, m *monitor) {
	ctx, stop := context.WithTimeout(ctx, length)
	defer stop()
	var running sync.WaitGroup
	running.Go(func() { l.streams(ctx, &running, length) })
	running.Go(func() { l.singles(ctx, &running) })
	running.Go(func() { l.every(ctx, 30*time.Second, func(int) { l.up.Hangup() }) })
	running.Go(func() { l.every(ctx, 45*time.Second, func(n int) { l.burst(&running, n) }) })
	running.Go(func() { l.every(ctx, 2*time.Minute, func(n int) { l.wave(ctx, &running, n) }) })
	over := make(chan struct{})
	go func() {
		running.Wait()
		close(over)
	}()
	m.watch(over, stop)
	<-over
}

// streams keeps as many streams open as the settings say; they do not begin all at once.
func (l *load) streams(ctx context.Context, running *sync.WaitGroup, length time.Duration) {
	for slot := range streams {
		running.Go(func() {
			pause(ctx, length/10*time.Duration(slot)/streams)
			for n := 0; ctx.Err() == nil; n++ {
				p := l.mix.stream(fmt.Sprintf("stream-%d-%d", slot, n))
				if deadline, ok := ctx.Deadline(); ok { // none outlives the load by far
					p.Events = min(p.Events, 1+int(max(0, time.Until(deadline))/p.Every))
					p.seen = min(p.seen, p.Events-1)
				}
				l.do(p)
			}
		})
	}
}

// singles sends requests at random, as many clients do that know nothing of each other.
func (l *load) singles(ctx context.Context, running *sync.WaitGroup) {
	r := chance("arrivals")
	for n := 0; ctx.Err() == nil; n++ {
		pause(ctx, time.Duration(r.ExpFloat64()/rate*float64(time.Second)))
		running.Go(func() { l.do(l.mix.single(fmt.Sprintf("single-%d", n))) })
	}
}

// burst sends twice the uploads of 10 MiB that the proxy has room for, and two of the largest.
func (l *load) burst(running *sync.WaitGroup, n int) {
	sizes := slices.Repeat([]int64{10 * mib}, int(2*l.pod.MaxBufferedBytes/(10*mib)))
	for i, size := range append(sizes, l.pod.MaxBodyBytes, l.pod.MaxBodyBytes) {
		running.Go(func() { l.do(l.mix.burst(fmt.Sprintf("burst-%d-%d", n, i), size)) })
	}
}

// wave sends so many streams that with those that are open there are a fifth more than the proxy has slots.
func (l *load) wave(ctx context.Context, running *sync.WaitGroup, n int) {
	number := int(l.pod.MaxConnections*6/5) - streams
	for i := range number {
		running.Go(func() { l.do(l.mix.wave(fmt.Sprintf("wave-%d-%d", n, i))) })
		pause(ctx, l.waveLength()/time.Duration(number))
	}
}

// every does something again and again.
func (l *load) every(ctx context.Context, period time.Duration, do func(n int)) {
	for n := 0; ; n++ {
		if pause(ctx, time.Duration(float64(period)/l.pace)); ctx.Err() != nil {
			return
		}
		do(n)
	}
}

// do makes one request, and notes what came of it.
func (l *load) do(p plan) {
	begun := time.Now()
	res := l.exchange(p)
	var untold error
	if res.left { // the upstream must be told at once
		ctx, cancel := context.WithTimeout(context.Background(), lateness)
		untold = l.up.Await(ctx, p.Name, func(_, running int) bool { return running == 0 })
		cancel()
	}
	l.mu.Lock()
	problem := p.judge(res)
	if untold != nil {
		problem = fmt.Sprintf("the client left, and the upstream was not told: %v", untold)
	}
	l.kinds[p.kind]++
	if res.status != 0 {
		l.certain++
	}
	if p.method == http.MethodPost {
		l.posts++
	}
	if res.own != "" {
		l.statuses[res.status]++
	}
	l.all++
	l.mu.Unlock()
	if problem != "" {
		l.problem("%s: %s; %s %s with %d bytes, the client %s; got, after %v: status %d, %d events, %v %.200s", p.kind, problem,
			p.method, p.Part, p.size, p.habit, time.Since(begun).Round(time.Millisecond), res.status, res.events, res.err, res.own)
	}
}

// problem notes what is not as planned.
func (l *load) problem(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
	fmt.Fprintln(l.progress, "not as planned:", l.problems[len(l.problems)-1])
}
