package main

import (
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// pace asks the streams for events, one stream after the other, until the returned timer is closed. The moments are random,
// as those of independent streams are: the distances are distributed exponentially (a Poisson process), the same for
// every contender. The timer is the kernel's, since Go's own have a grain of a millisecond on Linux.
func (s *standin) pace(rate int) (io.Closer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	timer := os.NewFile(uintptr(fd), "timer")
	s.mu.Lock()
	streams := slices.Clone(s.streams)
	s.mu.Unlock()
	go func() {
		random := rand.New(rand.NewPCG(4000, uint64(rate)))
		mean := float64(time.Second) / float64(rate)
		due := now()
		var expirations [8]byte
		for next := 0; ; next++ {
			due += time.Duration(random.ExpFloat64() * mean)
			if wait := due - now(); wait > 0 {
				if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(wait))}, nil); err != nil {
					return // closed
				}
				if _, err := timer.Read(expirations[:]); err != nil {
					return // closed
				}
			}
			select {
			case streams[next%len(streams)].tick <- struct{}{}:
			default: // its last event has not been sent yet: the rate falls, and the measurement sees it
			}
		}
	}()
	return timer, nil
}
