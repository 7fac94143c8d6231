package main

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain turns this test binary into a naive proxy when a test starts it as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == naiveCommand {
		fmt.Fprintln(os.Stderr, serveNaive(os.Args[2:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func testRig(t *testing.T) *rig {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{dir: t.TempDir(), self: self, proxyCPU: someCPU(t), size: size{
		opened: 5, sequential: 5, small: 20, uploads: 2, starts: 1, warmUpRequests: 5, warmUpStreams: 2,
	}}
	if err := r.renew(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.standin.close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func someCPU(t *testing.T) int {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	cpu := 0
	for !all.IsSet(cpu) {
		cpu++
	}
	return cpu
}

// Every measure but the events' gets a plausible figure of a proxy that works.
func TestMeasures(t *testing.T) {
	r := testRig(t)
	for _, c := range contenders {
		if c.name != "naive-h1" && c.name != "naive-h2" {
			continue // the others need programs that are not here
		}
		for _, name := range measureNames()[1:] {
			measures, err := selectMeasures(name, nil)
			if err != nil || len(measures) != 1 {
				t.Fatal(measures, err)
			}
			readings, err := measures[0].run(r, c)
			if err != nil {
				t.Fatalf("%s of %s: %v", name, c.name, err)
			}
			for _, reading := range readings {
				if reading.Value <= 0 && name != "memory" { // which may shrink while there are so few streams
					t.Errorf("%s of %s: %v", name, c.name, reading)
				}
			}
		}
	}
}

// Events that are asked for arrive, all of them.
func TestEvents(t *testing.T) {
	r := testRig(t)
	_, err := r.with(direct, func(target target, _ *process) ([]reading, error) {
		streams, err := openStreams(target, 10)
		if err != nil {
			return nil, err
		}
		defer closeStreams(streams)
		readers := readAll(streams)
		pacer, err := r.standin.pace(1000)
		if err != nil {
			return nil, err
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			if n, err := readers.count(); err != nil || n >= 50 || time.Now().After(deadline) {
				pacer.Close()
				if err != nil || n < 50 {
					return nil, fmt.Errorf("%d events, %w", n, err)
				}
				return nil, r.allArrived(readers, len(streams))
			}
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// A request that has lost the flag fails the measurement.
func TestFlagIsRequired(t *testing.T) {
	r := testRig(t)
	_, err := r.with(direct, func(target target, _ *process) ([]reading, error) {
		target.flags = clientFlags
		return nil, openOne(target)
	})
	if err == nil {
		t.Error("a stream without the flag was opened")
	}
}

func openOne(t target) error {
	streams, err := openStreams(t, 1)
	closeStreams(streams)
	return err
}

// A contender's CPU and memory are those of all its processes.
func TestProcessCountsDescendants(t *testing.T) {
	said, says, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	// The shell that works is a child of the one that is started, which only waits.
	cmd := exec.Command("sh", "-c", "(i=0; while [ $i -lt 1000000 ]; do i=$((i+1)); done; echo done; exec sleep 60) & wait")
	cmd.Stdout = says
	p, err := startPinned(someCPU(t), cmd, "")
	says.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.stop()
	said.SetReadDeadline(time.Now().Add(patience))
	if _, err := said.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	used, err := p.cpu()
	if err != nil {
		t.Fatal(err)
	}
	if used < 100*time.Millisecond { // the shell alone would never get there
		t.Errorf("%v of CPU", used)
	}
	if m, err := p.memory(); err != nil || m <= 0 {
		t.Errorf("memory %d, %v", m, err)
	}
	if n, err := parsePss("00400000-7fff [rollup]\nRss:  900 kB\nPss:  389 kB\nPss_Dirty:  1 kB\n"); n != 389 || err != nil {
		t.Errorf("parsed %d, %v", n, err)
	}
}
