//go:build linux

package main

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
)

// TestMain turns this test binary into a bare ReverseProxy when a test starts it as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == bareName {
		fmt.Fprintln(os.Stderr, serveBare(os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func testRig(t *testing.T) *rig {
	t.Helper()
	self, err := os.Executable()
	assert.NilError(t, err)
	return &rig{dir: t.TempDir(), self: self, proxyCPU: someCPU(t), size: size{
		opened: 5, small: 20, uploads: 2, starts: 1, far: 1, warmUpRequests: 5, warmUpStreams: 2,
	}}
}

func someCPU(t *testing.T) int {
	var all unix.CPUSet
	assert.NilError(t, unix.SchedGetaffinity(0, &all))
	cpu := 0
	for !all.IsSet(cpu) {
		cpu++
	}
	return cpu
}

// Every measure but the events' gets a plausible figure of a proxy that works; the other contenders need programs that are not
// here.
func TestMeasures(t *testing.T) {
	r := testRig(t)
	bare, err := choose("only", bareName, contenders)
	assert.NilError(t, err)
	for _, m := range measures(nil) {
		for _, c := range append(bare, direct) {
			if c.name == direct.name && !m.withDirect {
				continue
			}
			readings, err := r.measure(m, c)
			assert.NilError(t, err, "%s of %s", m.name, c.name)
			for _, one := range readings {
				t.Log(c.name, one)
				if one.name != "memory per idle stream" { // which may shrink while there are so few streams
					assert.Check(t, one.value > 0, "%s of %s: %v", m.name, c.name, one)
				}
				if one.unit == "ms" && m.far > 0 {
					assert.Check(t, one.value >= micros(m.far)/1000, "%s of %s cannot be so fast: %v", m.name, c.name, one)
				}
			}
		}
	}
}

// Events that are asked for arrive, all of them.
func TestEvents(t *testing.T) {
	r := testRig(t)
	_, err := r.measure(measure{run: func(r *rig, c *client.Client, _ *process) ([]reading, error) {
		streams, err := r.openStreams(c, 10)
		if err != nil {
			return nil, err
		}
		readers := readAll(streams)
		defer readers.close()
		pacer, err := pace(r.standin, 1000)
		if err != nil {
			return nil, err
		}
		for {
			if _, sent := r.standin.Paced(); sent >= 60 || r.ctx.Err() != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		assert.NilError(t, pacer.Close())
		assert.NilError(t, readers.allArrived(r.standin))
		assert.Assert(t, len(readers.arrivals) >= 50, "%d events", len(readers.arrivals))
		return nil, nil
	}}, direct)
	assert.NilError(t, err)
}

// A request that has lost the flag fails the measurement.
func TestFlagIsRequired(t *testing.T) {
	r := testRig(t)
	_, err := r.measure(measure{run: func(r *rig, c *client.Client, _ *process) ([]reading, error) {
		c.Flags = client.Flags
		_, err := r.openStreams(c, 1)
		return nil, err
	}}, direct)
	assert.ErrorContains(t, err, "exactly once")
}
