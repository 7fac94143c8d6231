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
	probeEvery   = 200 * time.Millisecond
	probeTimeout = 2 * time.Second
	steady       = 10 // probes in a row that make an answer trustworthy: two seconds
)

// A probe is one look-up of the name and one request to where it leads.
type probe struct {
	at      time.Time
	took    time.Duration
	address string
	err     error
	done    bool
}

// A prober does what clients do, five times a second, and remembers how it went.
type prober struct {
	mu     sync.Mutex
	probes []probe // by start; the last few may not be done
	stop   func()
}

func (m *migration) startProber(fqdn string) *prober {
	ctx, cancel := context.WithCancel(context.Background())
	p := &prober{}
	var running sync.WaitGroup
	p.stop = func() { cancel(); running.Wait() }
	running.Go(func() {
		tick := time.NewTicker(probeEvery)
		defer tick.Stop()
		for {
			p.mu.Lock()
			i := len(p.probes)
			p.probes = append(p.probes, probe{at: time.Now()})
			p.mu.Unlock()
			running.Go(func() {
				addr, err := m.probe(ctx, fqdn)
				if ctx.Err() != nil {
					return // cut off by stop: says nothing about the name
				}
				p.mu.Lock()
				defer p.mu.Unlock()
				p.probes[i].took, p.probes[i].address, p.probes[i].err, p.probes[i].done = time.Since(p.probes[i].at), addr, err, true
			})
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return p
}

func (m *migration) probe(ctx context.Context, fqdn string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	addr, err := m.lookup(ctx, fqdn)
	if err != nil {
		return "", err
	}
	_, err = m.healthy(ctx, addr)
	return addr, err
}

// await waits until the last steady probes all answered, from one of the wanted addresses if any is given, all of them
// begun after since. It gives up at the deadline, after ten seconds without any answer, or with the context.
func (p *prober) await(ctx context.Context, since time.Time, limit time.Duration, want ...string) error {
	tick := time.NewTicker(probeEvery / 4)
	defer tick.Stop()
	for {
		good, quiet, wrong := p.tally(since, want)
		switch {
		case good >= steady:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Since(since) > limit, quiet > 10*time.Second:
			return wrong
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// tally counts the good probes at the end, and says for how long nothing answered and what was wrong with the last bad one.
func (p *prober) tally(since time.Time, want []string) (good int, quiet time.Duration, wrong error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	quiet, wrong = time.Since(since), errors.New("no probe has ended yet")
	ended, unbroken := false, true
	for _, b := range slices.Backward(p.probes) {
		if b.at.Before(since) {
			break
		}
		if !b.done && !ended {
			continue // under way
		}
		ended = true
		if b.done && b.err == nil {
			quiet = min(quiet, time.Since(b.at))
		}
		switch {
		case !unbroken:
		case !b.done:
			unbroken, wrong = false, errors.New("a probe hangs")
		case b.err != nil:
			unbroken, wrong = false, b.err
		case len(want) > 0 && !slices.Contains(want, b.address):
			unbroken, wrong = false, fmt.Errorf("the name still leads to %s", b.address)
		default:
			good++
		}
	}
	if unbroken && good > 0 {
		wrong = fmt.Errorf("only %d answers in a row so far, %d are wanted", good, steady)
	}
	return good, quiet, wrong
}

// last is where the name led last.
func (p *prober) last() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range slices.Backward(p.probes) {
		if b.done {
			return b.address
		}
	}
	return ""
}

// summary is the measurement in words. The silence is an upper bound: from the start of the last probe that was answered (or
// of the first of all) to the end of the next one.
func (p *prober) summary() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent, missed, silence := 0, 0, time.Duration(0)
	var lastGood time.Time
	broken := false
	for _, b := range p.probes {
		if !b.done {
			continue
		}
		if sent == 0 {
			lastGood = b.at
		}
		sent++
		if b.err != nil {
			missed++
			broken = true
			continue
		}
		if broken {
			silence = max(silence, b.at.Add(b.took).Sub(lastGood))
		}
		lastGood, broken = b.at, false
	}
	if missed == 0 {
		return fmt.Sprintf("%d probes of the name, every one answered (a gap below %v can hide between two)", sent, probeEvery)
	}
	if broken {
		return fmt.Sprintf("%d probes of the name, %d without an answer, the last one among them", sent, missed)
	}
	return fmt.Sprintf("%d probes of the name, %d without an answer; silent for at most %v", sent, missed, silence.Round(time.Millisecond))
}
