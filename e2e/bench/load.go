//go:build linux

package main

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// What is asked for, again and again, with a question of 2 KiB.
var (
	small       = standin.Part{Size: 300}
	stream      = standin.Part{Paced: true, Text: len(" tell me more")}
	requestBody = slices.Repeat([]byte("hello, how are you? "), 2048/20)
)

// smallClients is how many clients ask at the same time, each again as soon as it is answered, and openers how many open streams.
const (
	smallClients = 16
	openers      = 8
)

// askMany makes n small requests.
func (r *rig) askMany(c *client.Client, n int) error {
	return together(smallClients, n, func(int) error { return c.Ask(r.ctx, small, requestBody) })
}

// together calls f n times, from so many goroutines.
func together(goroutines, n int, f func(i int) error) error {
	errs := make(chan error, goroutines)
	for first := range goroutines {
		go func() {
			var err error
			for i := first; i < n && err == nil; i += goroutines {
				err = f(i)
			}
			errs <- err
		}()
	}
	var all error
	for range goroutines {
		all = errors.Join(all, <-errs)
	}
	return all
}

// openStreams opens n streams, each on a connection of its own, and reads the first event of each.
func (r *rig) openStreams(c *client.Client, n int) ([]*client.Stream, error) {
	streams := make([]*client.Stream, n)
	err := together(openers, n, func(i int) (err error) {
		if streams[i], err = c.Open(r.ctx, stream, requestBody); err == nil {
			_, err = streams[i].Next()
		}
		return err
	})
	if err != nil {
		closeStreams(streams)
		return nil, fmt.Errorf("open streams: %w", err)
	}
	return streams, nil
}

func closeStreams(streams []*client.Stream) {
	for _, s := range streams {
		if s != nil {
			s.Close()
		}
	}
}

// warmUp opens the streams that are not counted, after some small requests.
func (r *rig) warmUp(c *client.Client) ([]*client.Stream, error) {
	if err := r.askMany(c, r.size.warmUpRequests); err != nil {
		return nil, err
	}
	return r.openStreams(c, r.size.warmUpStreams)
}

// measureOpen measures the CPU it takes to open a stream on a new connection, up to its first event, and what a stream holds
// that has been silent for a while. The streams stay open, so that a proxy that speaks HTTP/1.1 to the upstream has to connect
// for each.
func measureOpen(r *rig, c *client.Client, p *process) ([]reading, error) {
	warm, err := r.warmUp(c)
	if err != nil {
		return nil, err
	}
	defer closeStreams(warm)
	memory, err := binary.Memory(p.pid())
	if err != nil {
		return nil, err
	}
	var streams []*client.Stream
	used, err := p.cpuOf(func() (err error) {
		streams, err = r.openStreams(c, r.size.opened)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer closeStreams(streams)
	time.Sleep(r.size.silence)
	after, err := binary.Memory(p.pid())
	if err != nil {
		return nil, err
	}
	return []reading{
		{metric{name: "CPU to open a stream", unit: "µs"}, micros(used) / float64(r.size.opened)},
		{metric{name: "memory per idle stream", unit: "KiB"}, float64(after-memory) / float64(r.size.opened) / 1024},
	}, nil
}

// measureSmall measures the CPU of a small request and its answer.
func measureSmall(r *rig, c *client.Client, p *process) ([]reading, error) {
	if err := r.askMany(c, r.size.warmUpRequests); err != nil {
		return nil, err
	}
	used, err := p.cpuOf(func() error { return r.askMany(c, r.size.small) })
	return []reading{{metric{name: "CPU per small request", unit: "µs"}, micros(used) / float64(r.size.small)}}, err
}

// uploadBody is made when it is asked for: the bare ReverseProxy, which is this program too, should not pay for it.
var uploadBody = sync.OnceValue(func() []byte { return make([]byte, 30_000_000) })

// measureUploads measures the most memory that the proxy holds while many large requests come at the same time, for an
// upstream that takes them more slowly, 160 MiB a second, than the clients send them.
func measureUploads(r *rig, c *client.Client, p *process) ([]reading, error) {
	if err := r.askMany(c, r.size.warmUpRequests); err != nil {
		return nil, err
	}
	uploaded := make(chan error, 1)
	go func() {
		uploaded <- together(r.size.uploads, r.size.uploads, func(int) error {
			return c.Ask(r.ctx, standin.Part{Rate: 160 << 20}, uploadBody()[:10<<20])
		})
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for peak := int64(0); ; {
		select {
		case err := <-uploaded:
			name := fmt.Sprintf("peak memory, %d uploads of 10 MiB", r.size.uploads)
			return []reading{{metric{name: name, unit: "MiB"}, float64(peak) / (1 << 20)}}, err
		case <-tick.C:
			m, err := binary.Memory(p.pid())
			if err != nil {
				return nil, err
			}
			peak = max(peak, m)
		}
	}
}

// measureReady measures the time from exec until a connection is accepted, and for ours until /health says 200.
func measureReady(r *rig, c contender) ([]reading, error) {
	var took []float64
	for range r.size.starts {
		p, err := c.start(r)
		if err != nil {
			return nil, err
		}
		after, err := p.ready(c)
		p.stop()
		if err != nil {
			return nil, err
		}
		took = append(took, micros(after)/1000)
	}
	return []reading{{metric{name: "start until ready", unit: "ms"}, median(took)}}, nil
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
