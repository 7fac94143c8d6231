package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	probeEvery = 200 * time.Millisecond
	steady     = 10 // how many answers in a row are enough: two seconds' worth
)

// A prober acts like a client: five times a second it looks the name up and sends a request. It counts the results.
type prober struct {
	stop func()

	mu           sync.Mutex
	want         []string // the addresses that the name should lead to
	streak       int      // good answers since the last bad one
	wrong        error    // the error of the last bad probe
	sent, missed int
	answered     time.Time     // when the last answered probe began
	silence      time.Duration // upper bound for the longest time without an answer
}

func (m *migration) startProber(fqdn string) *prober {
	ctx, cancel := context.WithCancel(context.Background())
	p := &prober{answered: time.Now()}
	var running sync.WaitGroup
	p.stop = func() { cancel(); running.Wait() }
	running.Go(func() {
		for tick := time.Tick(probeEvery); ctx.Err() == nil; <-tick {
			begin := time.Now()
			address, err := m.lookup(ctx, fqdn)
			if err == nil {
				_, err = m.answers(ctx, address)
			}
			if ctx.Err() == nil { // stop has cancelled this probe, so it proves nothing about the name
				p.record(begin, address, err)
			}
		}
	})
	return p
}

func (p *prober) record(begin time.Time, address string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent++
	p.silence = max(p.silence, time.Since(p.answered))
	if err != nil {
		p.missed++
	} else {
		p.answered = begin
		if !slices.Contains(p.want, address) {
			err = fmt.Errorf("the name leads to %s", address)
		}
	}
	if err != nil {
		p.streak, p.wrong = 0, err
	} else {
		p.streak++
	}
}

// await waits for enough answers in a row from the device, counted from now.
func (p *prober) await(ctx context.Context, d *device, limit time.Duration) error {
	p.mu.Lock()
	p.want, p.streak, p.wrong = d.Addresses, 0, errors.New("no probe has ended yet")
	p.mu.Unlock()
	for deadline := time.Now().Add(limit); ; time.Sleep(probeEvery / 4) {
		p.mu.Lock()
		streak, wrong := p.streak, p.wrong
		p.mu.Unlock()
		switch {
		case streak >= steady:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Now().After(deadline):
			return fmt.Errorf("%d of %d answers in a row after %v, before that: %w", streak, steady, limit, wrong)
		}
	}
}

// summary returns the measurement as text.
func (p *prober) summary() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Sprintf("%d probes of the name, %d without an answer; silent for %v at most", p.sent, p.missed, p.silence.Round(time.Millisecond))
}
