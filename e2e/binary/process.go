package binary

import (
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// Process is the running binary.
type Process struct {
	URL  string
	Done chan struct{} // closed when the process has ended and all its output has been read

	cmd  *exec.Cmd
	log  *logReader
	term sync.Once // send SIGTERM only once
}

func newProcess(cmd *exec.Cmd) *Process {
	return &Process{cmd: cmd, log: newLogReader(), Done: make(chan struct{})}
}

func (p *Process) start() error {
	if err := p.cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = p.cmd.Wait() // ExitCode reads the state
		close(p.Done)
	}()
	return nil
}

// PID returns the process' number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal, unless the process has ended.
func (p *Process) Signal(signal syscall.Signal) error {
	select {
	case <-p.Done:
		return nil
	default:
		return p.cmd.Process.Signal(signal)
	}
}

// End sends SIGTERM, as Kubernetes does, and waits until the process has ended.
func (p *Process) End() error {
	var err error
	p.term.Do(func() { err = p.Signal(syscall.SIGTERM) })
	if err != nil {
		return err
	}
	select {
	case <-p.Done:
		return nil
	case <-time.After(Patience):
		_ = p.Signal(syscall.SIGQUIT) // Go answers with the stacks of all goroutines
		select {
		case <-p.Done:
		case <-time.After(Patience):
			p.Kill()
		}
		return fmt.Errorf("the proxy was still running %v after SIGTERM, with no request left", Patience)
	}
}

// Kill kills the process if it still runs.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.Done
}

// ExitCode returns the exit code of the ended process, or -1 if a signal ended it.
func (p *Process) ExitCode() int { return p.cmd.ProcessState.ExitCode() }

// Well returns an error unless the process has ended with exit code 0.
func (p *Process) Well() error {
	select {
	case <-p.Done:
	default:
		return errors.New("the proxy is still running")
	}
	if p.ExitCode() != 0 {
		return fmt.Errorf("the proxy ended with %v, want exit code 0", p.cmd.ProcessState)
	}
	return nil
}

// Stop sends SIGTERM, waits until the process has ended, and returns its exit code.
func (p *Process) Stop(t *testing.T) int {
	t.Helper()
	assert.Check(t, p.End())
	return p.ExitCode()
}
