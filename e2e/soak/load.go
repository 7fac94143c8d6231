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

// load makes all requests to the proxy and counts what its clients received.
type load struct {
	mix
	up       *standin.Server
	client   *client.Client
	body     []byte // every request sends the beginning of it
	progress io.Writer

	mu       sync.Mutex
	kinds    map[string]int // requests
	problems []string
	statuses map[int]int // of the proxy's own errors
	// Requests that certainly reached the proxy, all requests, and all POSTs. Clients may leave before their request arrives.
	certain, all, posts int
}

// run loads the proxy until the time is over, ctx ends, or the proxy has ended. It then starts no more requests and returns when all
// have ended.
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

// streams keeps a constant number of streams open. They do not all begin at once.
func (l *load) streams(ctx context.Context, running *sync.WaitGroup, length time.Duration) {
	for slot := range streams {
		running.Go(func() {
			pause(ctx, length/10*time.Duration(slot)/streams)
			for n := 0; ctx.Err() == nil; n++ {
				p := l.mix.stream(fmt.Sprintf("stream-%d-%d", slot, n))
				if deadline, ok := ctx.Deadline(); ok { // no stream lasts much longer than the load
					p.Events = min(p.Events, 1+int(max(0, time.Until(deadline))/p.Every))
					p.seen = min(p.seen, p.Events-1)
				}
				l.do(p)
			}
		})
	}
}

// singles sends requests at random times, like many independent clients.
func (l *load) singles(ctx context.Context, running *sync.WaitGroup) {
	r := chance("arrivals")
	for n := 0; ctx.Err() == nil; n++ {
		pause(ctx, time.Duration(r.ExpFloat64()/rate*float64(time.Second)))
		running.Go(func() { l.do(l.mix.single(fmt.Sprintf("single-%d", n))) })
	}
}

// burst sends uploads of 10 MiB that need twice max_buffered_bytes, and two uploads of the largest size.
func (l *load) burst(running *sync.WaitGroup, n int) {
	sizes := slices.Repeat([]int64{10 * mib}, int(2*l.pod.MaxBufferedBytes/(10*mib)))
	for i, size := range append(sizes, l.pod.MaxBodyBytes, l.pod.MaxBodyBytes) {
		running.Go(func() { l.do(l.mix.burst(fmt.Sprintf("burst-%d-%d", n, i), size)) })
	}
}

// wave opens streams until, with the others, a fifth more are open than the proxy has slots.
func (l *load) wave(ctx context.Context, running *sync.WaitGroup, n int) {
	number := int(l.pod.MaxConnections*6/5) - streams
	for i := range number {
		running.Go(func() { l.do(l.mix.wave(fmt.Sprintf("wave-%d-%d", n, i))) })
		pause(ctx, l.waveLength()/time.Duration(number))
	}
}

// every calls a function again and again.
func (l *load) every(ctx context.Context, period time.Duration, do func(n int)) {
	for n := 0; ; n++ {
		if pause(ctx, time.Duration(float64(period)/l.pace)); ctx.Err() != nil {
			return
		}
		do(n)
	}
}

// do makes one request and records its result.
func (l *load) do(p plan) {
	begun := time.Now()
	res := l.exchange(p)
	var untold error
	if res.left { // the proxy must cancel the upstream's request at once
		ctx, cancel := context.WithTimeout(context.Background(), lateness)
		untold = l.up.Await(ctx, p.Name, func(_, running int) bool { return running == 0 })
		cancel()
	}
	l.mu.Lock()
	problem := p.judge(res)
	if untold != nil {
		problem = fmt.Sprintf("the client left, but its request did not end at the upstream: %v", untold)
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

// problem records a deviation from the plan.
func (l *load) problem(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
	fmt.Fprintln(l.progress, "not as planned:", l.problems[len(l.problems)-1])
}
