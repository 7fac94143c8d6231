package main

import (
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	eventRate = 4000 // a second, on all streams together
	settle    = 1500 * time.Millisecond
	// maxStreams is what the contenders' configurations have room for.
	maxStreams = 4000
	eventsName = "events on %d streams"
)

// eventsMeasure measures CPU and delay of the events on n streams. Their rate is the same whatever n is, so that the
// figures show what the number of streams costs.
func eventsMeasure(n int) measure {
	delays := n == 100 || n == 1000
	m := measure{name: fmt.Sprintf(eventsName, n), withDirect: delays}
	m.run = func(r *rig, c contender) ([]reading, error) {
		return r.with(c, func(t target, p *process) ([]reading, error) {
			streams, err := openStreams(t, n)
			if err != nil {
				return nil, err
			}
			defer closeStreams(streams)
			arrivals, used, err := r.watchEvents(streams, p)
			if err != nil {
				return nil, err
			}
			var readings []reading
			if p != nil {
				cpu := metric{Name: fmt.Sprintf("CPU per event, %d streams", n), Unit: "µs"}
				readings = append(readings, reading{cpu, micros(used) / float64(len(arrivals))})
			}
			if delays {
				var all []float64
				for _, a := range arrivals {
					all = append(all, micros(a.delay))
				}
				slices.Sort(all)
				readings = append(readings,
					reading{metric{fmt.Sprintf("delay of an event, %d streams, p50", n), "µs", true}, quantile(all, 0.5)},
					reading{metric{fmt.Sprintf("delay of an event, %d streams, p99", n), "µs", true}, quantile(all, 0.99)})
			}
			return readings, nil
		})
	}
	return m
}

// watchEvents lets events flow, and returns those that were sent in the window, and the CPU that the process used in it.
func (r *rig) watchEvents(streams []*stream, p *process) ([]arrival, time.Duration, error) {
	readers := readAll(streams)
	pacer, err := r.standin.pace(eventRate)
	if err != nil {
		return nil, 0, err
	}
	defer pacer.Close()
	time.Sleep(settle)
	cpuBefore, err := cpuOf(p)
	if err != nil {
		return nil, 0, err
	}
	from, rigBefore := now(), rigCPU()
	time.Sleep(r.size.window)
	to, rigAfter := now(), rigCPU()
	cpuAfter, err := cpuOf(p)
	if err != nil {
		return nil, 0, err
	}
	if err := pacer.Close(); err != nil {
		return nil, 0, err
	}
	if err := r.allArrived(readers, len(streams)); err != nil {
		return nil, 0, err
	}
	var arrivals []arrival
	for _, a := range readers.arrivals {
		if from <= a.sent && a.sent < to {
			arrivals = append(arrivals, a)
		}
	}
	share := float64(len(arrivals)) / (eventRate * (to - from).Seconds())
	fmt.Fprintf(os.Stderr, "  %.0f %% of the rate; the rig used %.0f %% of a CPU\n", 100*share, 100*float64(rigAfter-rigBefore)/float64(to-from))
	if share < 0.95 {
		return nil, 0, fmt.Errorf("only %.0f %% of the events that were to be sent: something cannot keep up", 100*share)
	}
	return arrivals, cpuAfter - cpuBefore, nil
}

// allArrived waits until every event that was sent has been received.
func (r *rig) allArrived(readers *readers, streams int) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		n, err := readers.count()
		if err != nil {
			return err
		}
		open, sent := r.standin.sentEvents()
		if open == streams && n+streams == sent { // the first of each stream was read when it was opened
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d streams of %d left, %d events sent, %d received", open, streams, sent, n+streams)
		}
	}
}

// cpuOf is the process's CPU time; no process has none.
func cpuOf(p *process) (time.Duration, error) {
	if p == nil {
		return 0, nil
	}
	return p.cpu()
}

func rigCPU() time.Duration {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
