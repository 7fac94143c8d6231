//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
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
	done    chan struct{} // closed when the first process has ended
}

// running holds the process that is being measured, for killOnSignal.
var running struct {
	sync.Mutex
	process *process
}

// killOnSignal ends what is running and clears away, when this program is told to end.
func killOnSignal(dir string) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		running.Lock() // for good: nothing starts any more
		if running.process != nil {
			running.process.kill()
		}
		os.RemoveAll(dir)
		os.Exit(130)
	}()
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
	running.Lock()
	defer running.Unlock()
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
	running.process = p
	go func() { _ = cmd.Wait(); close(p.done) }() // it is killed in the end
	return p, nil
}

// ready waits until the contender takes requests, and returns how long that took. It asks without a pause: nothing else
// needs the rig's CPU meanwhile.
func (p *process) ready(c contender) (time.Duration, error) {
	for {
		var err error
		if c.health {
			_, err = binary.Get("http://" + p.addr + "/health")
		} else {
			var conn net.Conn
			if conn, err = net.Dial("tcp", p.addr); err == nil {
				conn.Close()
			}
		}
		took := time.Since(p.started)
		if err == nil {
			return took, nil
		}
		select {
		case <-p.done:
			return 0, p.explain(errors.New("it ended instead of listening"))
		default:
		}
		if took > binary.Patience {
			return 0, p.explain(err)
		}
	}
}

// explain adds what the process printed last.
func (p *process) explain(err error) error {
	for _, name := range []string{"stdout", "stderr"} {
		text, _ := os.ReadFile(filepath.Join(p.cmd.Dir, name))
		err = fmt.Errorf("%w\n%s", err, text[max(0, len(text)-2000):])
	}
	return err
}

func (p *process) kill() { _ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) } // it may have ended

// stop kills all of it. There is nothing to wait for: its clients have left.
func (p *process) stop() {
	p.kill()
	<-p.done
	running.Lock()
	running.process = nil
	running.Unlock()
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
