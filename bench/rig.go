package main

import (
	"crypto/tls"
	"fmt"
	"os"
	"runtime"
	"time"
)

// rig is what every measurement needs.
type rig struct {
	dir      string // for files
	ours     string // the proxy's binary
	self     string // this program's, for the naive proxies
	proxyCPU int
	standin  *standin // see renew
	size     size
}

// size is how much is measured.
type size struct {
	window         time.Duration // in which events are counted
	opened         int           // streams, to open and to hold
	silence        time.Duration // before the memory of silent streams is read
	sequential     int           // small requests, one after the other
	small          int           // small requests, sixteen at a time
	uploads        int           // at a time
	starts         int
	warmUpRequests int
	warmUpStreams  int
}

var (
	fullSize = size{
		window: 4 * time.Second, opened: 1000, silence: 3 * time.Second, sequential: 200, small: 10000, uploads: 64, starts: 10,
		warmUpRequests: 1000, warmUpStreams: 200,
	}
	quickSize = size{
		window: time.Second, opened: 100, silence: time.Second, sequential: 50, small: 1000, uploads: 16, starts: 2,
		warmUpRequests: 100, warmUpStreams: 20,
	}
)

// target is where a client connects to.
type target struct {
	addr  string
	tls   *tls.Config // nil in front of a proxy
	flags string      // the client's anthropic-beta
}

func (t target) request(path string, body []byte) []byte { return request(path, body, t.flags) }

// measure is one thing to measure of every contender.
type measure struct {
	name       string
	run        func(*rig, contender) ([]reading, error)
	withDirect bool
}

func measureNames() []string {
	return []string{"events", "open", "first-byte", "small", "memory", "uploads", "ready"}
}

// selectMeasures returns the chosen measures; events are one for each number of streams.
func selectMeasures(list string, counts []int) ([]measure, error) {
	names, err := selected("measure", list, measureNames())
	if err != nil {
		return nil, err
	}
	var chosen []measure
	for _, name := range names {
		switch name {
		case "events":
			for _, n := range counts {
				chosen = append(chosen, eventsMeasure(n))
			}
		case "open":
			chosen = append(chosen, measure{name: name, run: measureOpen})
		case "first-byte":
			chosen = append(chosen, measure{name: name, run: measureFirstByte, withDirect: true})
		case "small":
			chosen = append(chosen, measure{name: name, run: measureSmall})
		case "memory":
			chosen = append(chosen, measure{name: name, run: measureMemory})
		case "uploads":
			chosen = append(chosen, measure{name: name, run: measureUploads})
		case "ready":
			chosen = append(chosen, measure{name: name, run: measureReady})
		}
	}
	return chosen, nil
}

// with runs f in front of a fresh process of the contender, or of the stand-in itself: then the process is nil.
func (r *rig) with(c contender, f func(t target, p *process) ([]reading, error)) ([]reading, error) {
	if c.name == direct.name {
		return f(target{
			addr:  fmt.Sprintf("127.0.0.1:%d", r.standin.port),
			tls:   &tls.Config{RootCAs: r.standin.roots, ServerName: "localhost", NextProtos: []string{"http/1.1"}},
			flags: clientFlags + ",oauth-2025-04-20",
		}, nil)
	}
	p, err := c.start(r)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	if _, err := p.ready(c); err != nil {
		return nil, err
	}
	readings, err := f(target{addr: p.addr, flags: clientFlags}, p)
	if err != nil {
		return nil, p.explain(err)
	}
	return readings, nil
}

// renew replaces the stand-in, so that nothing is left over from the measurement before: no stream, and no port that its
// connections still occupy.
func (r *rig) renew() error {
	if r.standin != nil {
		if err := r.standin.close(); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp(r.dir, "standin-")
	if err != nil {
		return err
	}
	r.standin, err = startStandin(dir)
	runtime.GC()
	return err
}

// warmUp opens the streams that are not counted, after some small requests.
func (r *rig) warmUp(t target) ([]*stream, error) {
	if err := askMany(t, r.size.warmUpRequests); err != nil {
		return nil, err
	}
	return openStreams(t, r.size.warmUpStreams)
}
