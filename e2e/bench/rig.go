//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/distance"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// rig is what every measurement needs.
type rig struct {
	dir      string // for files
	ours     string // the proxy's binary
	self     string // this program's, for the bare ReverseProxy
	proxyCPU int
	netem    bool // distance is the kernel's, not a relay's
	size     size

	ctx      context.Context // of the current measurement
	standin  *standin.Server // and its stand-in
	upstream string          // whose address is this
	far      time.Duration   // at this distance
}

// size is how much is measured.
type size struct {
	window         time.Duration // in which events are counted
	opened         int           // streams, to open and to hold
	silence        time.Duration // before the memory of silent streams is read
	small          int           // small requests, sixteen at a time
	uploads        int           // at a time
	starts         int
	far            int // requests of each kind, at a distance
	warmUpRequests int
	warmUpStreams  int
}

var (
	fullSize = size{
		window: 4 * time.Second, opened: 1000, silence: 3 * time.Second, small: 10000, uploads: 64, starts: 10, far: 5,
		warmUpRequests: 1000, warmUpStreams: 200,
	}
	quickSize = size{
		window: time.Second, opened: 100, silence: time.Second, small: 1000, uploads: 16, starts: 2, far: 1,
		warmUpRequests: 100, warmUpStreams: 20,
	}
)

// metric is what a figure says.
type metric struct {
	name, unit string
	overDirect bool // of interest is what is added to the figure without a proxy
}

type reading struct {
	metric
	value float64
}

// measure is one thing to measure of every contender.
type measure struct {
	name       string
	run        func(r *rig, c *client.Client, p *process) ([]reading, error) // without a proxy, p is nil
	start      func(r *rig, c contender) ([]reading, error)                  // in place of run: starts the contender itself
	withDirect bool
	far        time.Duration // the round trip between proxy and stand-in
}

// patience is for how long a measurement goes on before it is given up.
const patience = 3 * time.Minute

// measure measures a contender in a fresh process, with a fresh stand-in: nothing is left over from the measurement before.
func (r *rig) measure(m measure, c contender) ([]reading, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r.ctx, r.far = ctx, m.far
	closeUpstream, err := r.newUpstream(m.far)
	if err != nil {
		return nil, err
	}
	defer closeUpstream()
	runtime.GC()
	if m.start != nil {
		return m.start(r, c)
	}
	if c.name == direct.name {
		to := client.New("https://" + r.upstream)
		to.Flags += "," + standin.OAuthFlag
		to.Transport.TLSClientConfig = &tls.Config{RootCAs: r.standin.CA.Pool(), ServerName: "localhost", NextProtos: []string{"http/1.1"}}
		defer to.Close()
		return m.run(r, to, nil)
	}
	p, err := c.start(r)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	if _, err := p.ready(c); err != nil {
		return nil, err
	}
	to := client.New("http://" + p.addr)
	defer to.Close()
	readings, err := m.run(r, to, p)
	if err != nil {
		return nil, p.explain(err)
	}
	return readings, nil
}

// newUpstream starts the stand-in, near or far.
func (r *rig) newUpstream(far time.Duration) (func(), error) {
	options := standin.Options{CAFile: filepath.Join(r.dir, "ca.pem"), Streams: 10000}
	undo := func() {}
	if far > 0 && r.netem {
		host, err := distance.NewHost()
		if err != nil {
			return nil, err
		}
		undo = host.Close
		if err = host.Delay(far); err == nil {
			options.Listener, err = host.Listen()
		}
		if err != nil {
			undo()
			return nil, fmt.Errorf("a distance by netem: %w", err)
		}
	}
	s, err := standin.Start(options)
	if err != nil {
		undo()
		return nil, err
	}
	r.standin, r.upstream = s, s.Addr()
	if far > 0 && !r.netem {
		relay, err := distance.NewRelay(s.Addr(), far)
		if err != nil {
			s.Close()
			return nil, err
		}
		r.upstream, undo = relay.Addr(), func() { relay.Close() }
	}
	return func() {
		if err := s.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		undo()
	}, nil
}
