package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// load is everything that happens to the proxy.
type load struct {
	settings settings
	mix      mix
	client   *client
	upstream *upstream
	monitor  *monitor
}

// run loads the proxy until the time is over, ctx ends, or the proxy is gone. Then it starts nothing more, and returns when
// every request has come to its own end. It reports whether the proxy is still there.
func (l load) run(ctx context.Context) bool {
	ctx, stop := context.WithTimeout(ctx, l.settings.length())
	defer stop()
	over := make(chan struct{}) // closed when the last request is
	var running sync.WaitGroup
	running.Go(func() { l.streams(ctx, &running) })
	running.Go(func() { l.singles(ctx, &running) })
	running.Go(func() { every(ctx, l.settings.burst, func(n int) { l.burst(&running, n) }) })
	running.Go(func() { every(ctx, l.settings.wave, func(n int) { l.wave(ctx, &running, n) }) })
	running.Go(func() { every(ctx, l.settings.hangup, func(int) { l.upstream.hangup() }) })
	running.Go(func() {
		r := l.mix.random("resets")
		every(ctx, l.settings.reset, func(int) { l.upstream.reset(r.IntN) })
	})
	running.Go(func() {
		<-ctx.Done()
		close(l.upstream.book.closing)
	})
	go func() {
		running.Wait()
		close(over)
	}()
	alive := l.monitor.watch(over)
	stop()
	<-over
	return alive
}

// leave closes the connections on both sides of the proxy.
func (l load) leave() {
	l.client.http.CloseIdleConnections()
	l.upstream.server.CloseClientConnections()
}

// streams keeps as many streams open as the settings say; they do not begin all at once.
func (l load) streams(ctx context.Context, running *sync.WaitGroup) {
	rampUp := min(30*time.Second, l.settings.length()/10)
	for slot := range l.settings.streams {
		running.Go(func() {
			if !wait(ctx, nil, rampUp*time.Duration(slot)/time.Duration(l.settings.streams)) {
				return
			}
			for n := 0; ctx.Err() == nil; n++ {
				l.client.do(l.mix.stream(fmt.Sprintf("stream-%d-%d", slot, n)))
			}
		})
	}
}

// singles sends requests at random, as many clients do that know nothing of each other.
func (l load) singles(ctx context.Context, running *sync.WaitGroup) {
	r := l.mix.random("arrivals")
	for n := 0; ; n++ {
		if !wait(ctx, nil, time.Duration(r.ExpFloat64()/l.settings.rate*float64(time.Second))) {
			return
		}
		running.Go(func() { l.client.do(l.mix.single(fmt.Sprintf("single-%d", n))) })
	}
}

// burst sends twice the uploads that the proxy has room for.
func (l load) burst(running *sync.WaitGroup, n int) {
	if l.lull() {
		return
	}
	for i := range 2 * l.mix.pod.maxBufferedBytes / l.mix.pod.maxBodyBytes {
		running.Go(func() { l.client.do(l.mix.burst(fmt.Sprintf("burst-%d-%d", n, i))) })
	}
}

// wave sends so many streams that with those that are open there are a fifth more than the proxy has slots, and lets them go a
// little later. It takes as long to rise: a thousand handshakes at once are work for this machine, not for the proxy.
func (l load) wave(ctx context.Context, running *sync.WaitGroup, n int) {
	if l.lull() {
		return
	}
	over := make(chan struct{})
	defer close(over)
	begun, streams := time.Now(), l.mix.pod.maxConnections*6/5-l.settings.streams
	for i := range streams {
		running.Go(func() { l.client.do(l.mix.wave(fmt.Sprintf("wave-%d-%d", n, i), over)) })
		due := begun.Add(waveLength * time.Duration(i) / time.Duration(streams))
		if !wait(ctx, nil, max(0, time.Until(due))) {
			return
		}
	}
	wait(ctx, nil, waveLength)
}

func (l load) lull() bool {
	_, lull := l.settings.inLull(time.Since(l.monitor.begun))
	return lull
}

// every does something again and again; a period of 0 means never.
func every(ctx context.Context, period time.Duration, do func(n int)) {
	for n := 0; period > 0 && wait(ctx, nil, period); n++ {
		do(n)
	}
}
