package binary

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree returns the process and its descendants.
func tree(pid int) ([]int, error) {
	pids := []int{pid}
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

// CPU returns the CPU time that a process and its descendants have used so far, from their CPU clocks.
func CPU(pid int) (time.Duration, error) {
	pids, err := tree(pid)
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

// Memory returns the proportional set size of a process and its descendants in bytes.
func Memory(pid int) (int64, error) {
	pids, err := tree(pid)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, pid := range pids {
		pss, err := figure(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss")
		if err != nil {
			return 0, err
		}
		sum += pss
	}
	return sum, nil
}

// Status returns one value of /proc/PID/status, such as VmRSS or VmHWM, in bytes.
func Status(pid int, name string) (int64, error) {
	return figure(fmt.Sprintf("/proc/%d/status", pid), name)
}

// figure reads the value of a line such as `Pss:  389 kB`.
func figure(file, name string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name+":" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, errors.New(file + " has no " + name)
}
