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
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a contender that runs: its processes are a process group.
type process struct {
	addr    string
	cmd     *exec.Cmd
	started time.Duration
	done    chan struct{} // closed when the first process has ended
}

// running holds the process that is being measured, for killOnSignal.
var running struct {
	sync.Mutex
	process *process
}

// killOnSignal ends what is running and clears away, when this program is told to end.
func killOnSignal(r *rig) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		running.Lock() // for good: nothing starts any more
		if running.process != nil {
			running.process.kill()
		}
		os.RemoveAll(r.dir)
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
	p := &process{addr: addr, cmd: cmd, started: now(), done: make(chan struct{})}
	err := cmd.Start()
	if err := unix.SchedSetaffinity(0, &before); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	running.process = p
	go func() { cmd.Wait(); close(p.done) }()
	return p, nil
}

// ready waits until the contender takes requests, and returns when that was. It asks without a pause: nothing else
// needs the rig's CPU meanwhile.
func (p *process) ready(c contender) (time.Duration, error) {
	for deadline := time.Now().Add(patience); ; {
		conn, err := dial(target{addr: p.addr})
		if err == nil {
			defer conn.Close()
			if c.health {
				err = conn.send([]byte("GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"))
			}
			return now(), err
		}
		select {
		case <-p.done:
			return 0, p.explain(errors.New("it ended instead of listening"))
		default:
		}
		if time.Now().After(deadline) {
			return 0, p.explain(err)
		}
	}
}

// explain adds what the process said first, and last.
func (p *process) explain(err error) error {
	stdout, _ := os.ReadFile(filepath.Join(p.cmd.Dir, "stdout"))
	stderr, _ := os.ReadFile(filepath.Join(p.cmd.Dir, "stderr"))
	return fmt.Errorf("%w\n%s\n%s", err, ends(stdout), ends(stderr))
}

func ends(text []byte) []byte {
	const length = 1000
	if len(text) <= 2*length {
		return text
	}
	return slices.Concat(text[:length], []byte("\n[…]\n"), text[len(text)-length:])
}

func (p *process) kill() { syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }

// stop kills all of it. There is nothing to wait for: its clients have left.
func (p *process) stop() {
	p.kill()
	<-p.done
	running.Lock()
	running.process = nil
	running.Unlock()
}

// pids returns the process and its descendants.
func (p *process) pids() ([]int, error) {
	pids := []int{p.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		if err != nil {
			return nil, err
		}
		if len(tasks) == 0 {
			return nil, fmt.Errorf("process %d ended, or the kernel does not list children", pids[i])
		}
		for _, task := range tasks {
			list, err := os.ReadFile(task)
			if err != nil {
				continue // that thread has just ended
			}
			for child := range strings.FieldsSeq(string(list)) {
				pid, err := strconv.Atoi(child)
				if err != nil {
					return nil, err
				}
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

// cpu returns the CPU time that the process and its descendants have used so far, from their CPU clocks.
func (p *process) cpu() (time.Duration, error) {
	pids, err := p.pids()
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, pid := range pids {
		var t unix.Timespec
		const cpuClockSched = 2 // see clock_getcpuclockid(3)
		if err := unix.ClockGettime(int32(^pid)<<3|cpuClockSched, &t); err != nil {
			return 0, fmt.Errorf("CPU clock of process %d: %w", pid, err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}

// memory returns the proportional set size of the process and its descendants, in bytes.
func (p *process) memory() (int64, error) {
	pids, err := p.pids()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, pid := range pids {
		rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		kib, err := parsePss(string(rollup))
		if err != nil {
			return 0, fmt.Errorf("smaps_rollup of process %d: %w", pid, err)
		}
		sum += kib << 10
	}
	return sum, nil
}

// parsePss returns the figure of the line `Pss:  389 kB`.
func parsePss(rollup string) (int64, error) {
	for line := range strings.Lines(rollup) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "Pss:" {
			return strconv.ParseInt(fields[1], 10, 64)
		}
	}
	return 0, errors.New("no line Pss")
}

// freePort returns a port that nobody listens at.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
