//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

const (
	eventRate = 4000 // a second, on all streams together
	settle    = 1500 * time.Millisecond
	// maxStreams is what the contenders' configurations have room for.
	maxStreams = 4000
)

// eventsMeasure measures CPU and delay of the events on n streams. Their rate is the same whatever n is, so that the
// figures show what the number of streams costs.
func eventsMeasure(n int) measure {
	delays := n == 100 || n == 1000
	run := func(r *rig, c *client.Client, p *process) ([]reading, error) {
		streams, err := r.openStreams(c, n)
		if err != nil {
			return nil, err
		}
		arrivals, used, err := r.watchEvents(streams, p)
		if err != nil {
			return nil, err
		}
		var readings []reading
		if p != nil {
			cpu := metric{name: fmt.Sprintf("CPU per event, %d streams", n), unit: "µs"}
			readings = append(readings, reading{cpu, micros(used) / float64(len(arrivals))})
		}
		if delays {
			readings = append(readings,
				reading{metric{fmt.Sprintf("delay of an event, %d streams, p50", n), "µs", true}, quantile(arrivals, 0.5)},
				reading{metric{fmt.Sprintf("delay of an event, %d streams, p99", n), "µs", true}, quantile(arrivals, 0.99)})
		}
		return readings, nil
	}
	return measure{name: "events", run: run, withDirect: delays}
}

// watchEvents lets events flow, and returns the delays of those that were sent in the window, and the CPU that the process
// used in it.
func (r *rig) watchEvents(streams []*client.Stream, p *process) (delays []float64, used time.Duration, err error) {
	readers := readAll(streams)
	defer readers.close()
	pacer, err := pace(r.standin, eventRate)
	if err != nil {
		return nil, 0, err
	}
	defer pacer.Close()
	time.Sleep(settle)
	var from, to time.Duration
	rig := rigCPU()
	used, err = p.cpuOf(func() error {
		from = standin.Now()
		time.Sleep(r.size.window)
		to = standin.Now()
		return nil
	})
	rig = rigCPU() - rig
	if err = errors.Join(err, pacer.Close(), readers.allArrived(r.standin)); err != nil {
		return nil, 0, err
	}
	for _, a := range readers.arrivals {
		if from <= a.sent && a.sent < to {
			delays = append(delays, micros(a.delay))
		}
	}
	share := float64(len(delays)) / (eventRate * (to - from).Seconds())
	fmt.Fprintf(os.Stderr, "  %.0f %% of the rate; the rig used %.0f %% of a CPU\n", 100*share, 100*float64(rig)/float64(to-from))
	if share < 0.95 {
		return nil, 0, fmt.Errorf("only %.0f %% of the events that were to be sent: something cannot keep up", 100*share)
	}
	return delays, used, nil
}

func rigCPU() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) // every Linux has it
	return time.Duration(t.Nano())
}

// readers read all streams' events until close.
type readers struct {
	streams  []*client.Stream
	mu       sync.Mutex
	arrivals []arrival
	err      error
}

type arrival struct{ sent, delay time.Duration }

func readAll(streams []*client.Stream) *readers {
	r := &readers{streams: streams}
	for _, s := range streams {
		go func() {
			for {
				sent, delay, err := s.NextSent()
				r.mu.Lock()
				if err != nil {
					r.err = err
					r.mu.Unlock()
					return
				}
				r.arrivals = append(r.arrivals, arrival{sent, delay})
				r.mu.Unlock()
			}
		}()
	}
	return r
}

func (r *readers) close() { closeStreams(r.streams) }

// allArrived waits until every event that was sent has been received.
func (r *readers) allArrived(s *standin.Server) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		n, err := len(r.arrivals), r.err
		r.mu.Unlock()
		if err != nil {
			return err
		}
		open, sent := s.Paced()
		if open == len(r.streams) && n+open == sent { // the first of each stream was read when it was opened
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d streams of %d left, %d events sent, %d received", open, len(r.streams), sent, n+len(r.streams))
		}
	}
}

// pace asks the streams for events, one stream after the other, until the returned timer is closed. The moments are random,
// as those of independent streams are: the distances are distributed exponentially (a Poisson process), the same for
// every contender. The timer is the kernel's, since Go's own have a grain of a millisecond on Linux.
func pace(s *standin.Server, rate int) (io.Closer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	timer := os.NewFile(uintptr(fd), "timer")
	go func() {
		random := rand.New(rand.NewPCG(4000, uint64(rate)))
		mean := float64(time.Second) / float64(rate)
		due := standin.Now()
		var expirations [8]byte
		for next := 0; ; next++ {
			due += time.Duration(random.ExpFloat64() * mean)
			if wait := due - standin.Now(); wait > 0 {
				if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(wait))}, nil); err != nil {
					return // closed
				}
				if _, err := timer.Read(expirations[:]); err != nil {
					return // closed
				}
			}
			s.Tick(next) // if that stream's last event has not been sent yet, the rate falls, and the measurement sees it
		}
	}()
	return closeOnce{timer}, nil
}

// closeOnce may be closed again.
type closeOnce struct{ *os.File }

func (c closeOnce) Close() error {
	if err := c.File.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}
