//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
)

// process is a contender that runs: its processes are a process group.
type process struct {
	addr    string
	cmd     *exec.Cmd
	started time.Time
	took    time.Duration // until it was ready
	done    chan struct{} // closed when the first process has ended
}

// pinRig leaves the last CPU to the contenders, and gives this process the rest: it starts itself again, since threads
// that exist already would stay where they are. It returns the contenders' CPU.
func pinRig() (int, error) {
	const variable = "BENCH_PROXY_CPU"
	if cpu, err := strconv.Atoi(os.Getenv(variable)); err == nil {
		return cpu, nil
	}
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return 0, err
	}
	if all.Count() < 2 {
		return 0, errors.New("this needs two CPUs: one for the proxy, one for its clients and its upstream")
	}
	last := 0
	for cpu := range len(all) * strconv.IntSize {
		if all.IsSet(cpu) {
			last = cpu
		}
	}
	all.Clear(last)
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	runtime.LockOSThread()
	if err := unix.SchedSetaffinity(0, &all); err != nil {
		return 0, err
	}
	return 0, syscall.Exec(self, os.Args, append(os.Environ(), variable+"="+strconv.Itoa(last)))
}

// startPinned starts the command on the given CPU: a child inherits the affinity of the thread that forks it.
func startPinned(cpu int, cmd *exec.Cmd, addr string) (*process, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, err
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p := &process{addr: addr, cmd: cmd, started: time.Now(), done: make(chan struct{})}
	err := cmd.Start()
	if err := unix.SchedSetaffinity(0, &before); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	go func() { _ = cmd.Wait(); close(p.done) }() // it is killed in the end
	return p, nil
}

// ready waits until the contender takes requests, and notes how long that took. It asks without a pause: nothing else
// needs the rig's CPU meanwhile.
func (p *process) ready() error {
	for {
		conn, err := net.Dial("tcp", p.addr)
		p.took = time.Since(p.started)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.done:
			return p.explain(errors.New("it ended instead of listening"))
		default:
		}
		if p.took > binary.Patience {
			return p.explain(err)
		}
	}
}

// explain adds what the process printed last.
func (p *process) explain(err error) error {
	text, _ := os.ReadFile(filepath.Join(p.cmd.Dir, output))
	return fmt.Errorf("%w\n%s", err, text[max(0, len(text)-2000):])
}

// stop kills all of it. There is nothing to wait for: its clients have left.
func (p *process) stop() {
	_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // it may have ended
	<-p.done
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// cpuOf returns the CPU time that the contender uses while f runs; no process has none.
func (p *process) cpuOf(f func() error) (time.Duration, error) {
	if p == nil {
		return 0, f()
	}
	before, err := binary.CPU(p.pid())
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := binary.CPU(p.pid())
	return after - before, err
}
