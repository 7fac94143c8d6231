package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is how long what should take no time may take on a busy machine.
const patience = 30 * time.Second

// proxy is the running binary.
type proxy struct {
	url  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended, and all it printed has been read

	mu       sync.Mutex
	requests int      // finished ones, by the log
	strange  []string // lines that have no place in a log of such a run
}

// startProxy starts the binary in the cgroup and waits until it listens.
func startProxy(binary string, pod pod, group *cgroup, up *upstream, dir string) (*proxy, error) {
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, pod.config, 0o644); err != nil {
		return nil, err
	}
	args := group.command(binary, "--config", file, "--listen", "127.0.0.1:0", "--upstream", up.url)
	p := &proxy{cmd: exec.Command(args[0], args[1:]...), done: make(chan struct{})}
	// Nothing else of the caller's: no proxy, no credential, no GOGC.
	p.cmd.Env = append(pod.env, "SSL_CERT_FILE="+up.caFile, "HOME="+dir)
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = in, in
	err = p.cmd.Start()
	in.Close()
	if err != nil {
		out.Close()
		return nil, err
	}
	listening := make(chan string, 1)
	go func() {
		defer close(p.done)
		p.read(out, listening)
		_ = p.cmd.Wait() // its state is read
	}()
	select {
	case addr := <-listening:
		p.url = "http://" + addr
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("the proxy ended instead of serving: %v\n%s", p.cmd.ProcessState, strings.Join(p.strange, "\n"))
	case <-time.After(patience):
		p.kill()
		return nil, errors.New("the proxy does not say that it listens")
	}
}

// read reads the log to its end.
func (p *proxy) read(out io.ReadCloser, listening chan<- string) {
	defer out.Close()
	lines := bufio.NewReader(out)
	for {
		text, err := lines.ReadString('\n')
		if text != "" {
			p.line(text, listening)
		}
		if err != nil {
			return
		}
	}
}

// line judges one line: a finished request, a retry, a state or the signal at the end are foreseen. Anything else is
// strange, above all what is not JSON, for that is how Go reports a panic.
func (p *proxy) line(text string, listening chan<- string) {
	var line struct{ Msg, State, Addr, Level string }
	err := json.Unmarshal([]byte(text), &line)
	if err == nil && line.State == "running" {
		listening <- line.Addr
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil && line.Msg == "request":
		p.requests++
	case err == nil && line.Level != "ERROR" && (line.State != "" || strings.HasPrefix(line.Msg, "retry: ") || line.Msg == "signal received"):
	default:
		p.strange = append(p.strange, strings.TrimSpace(text))
	}
}

// logged returns how many requests the log has, and the strange lines.
func (p *proxy) logged() (requests int, strange []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests, p.strange
}

// stop asks the proxy to end, and returns an error if it does not do so well.
func (p *proxy) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("the proxy has ended before it was told to: %v", p.cmd.ProcessState)
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		return fmt.Errorf("the proxy, with nothing left to do, still runs %v after SIGTERM", patience)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the proxy ended with %v after SIGTERM, want exit code 0", p.cmd.ProcessState)
	}
	return nil
}

// kill is for the way out.
func (p *proxy) kill() {
	_ = p.cmd.Process.Kill() // it has ended, if all went well
	<-p.done
}

// status reads a figure of the process that /proc gives in KiB, and returns bytes; 0 if there is no process.
func (p *proxy) status(name string) int64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == name+":" {
			kib, _ := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10
		}
	}
	return 0
}

// descriptors counts the open ones.
func (p *proxy) descriptors() int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	return len(entries)
}
