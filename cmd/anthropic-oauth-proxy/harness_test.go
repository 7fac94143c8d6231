package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	"gotest.tools/v3/poll"
)

// patience is how long a test waits for what must happen, also on a busy machine. Only a failing test waits that long.
const patience = 30 * time.Second

// binary is the program under test, built once per test run.
var binary string

func TestMain(m *testing.M) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) // else the programs would inherit from nohup that it is ignored
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "anthropic-oauth-proxy-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "anthropic-oauth-proxy")
	args := []string{"build", "-buildvcs=false", "-o", binary}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-race" && s.Value == "true" {
				args = append(args, "-race") // run the program under the race detector too
			}
		}
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program under test: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// process is a running program.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	addr   string // the address on which it listens
	stderr *lineLog
	ended  chan struct{} // closed when it has exited
	code   int           // its exit code, valid after that; -1 if a signal killed it
}

// launch starts the program, or a command that becomes it, in its own folder, with nothing of this machine's environment. It reads
// standard error unless the command has another.
func launch(t *testing.T, cmd *exec.Cmd, env ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, stderr: &lineLog{}, ended: make(chan struct{})}
	if cmd.Stderr == nil {
		cmd.Stderr = p.stderr
	}
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{"GORACE=atexit_sleep_ms=10", "PATH=" + os.Getenv("PATH")}, env...) // else -race makes every exit a second longer
	assert.NilError(t, cmd.Start())
	go func() {
		defer close(p.ended)
		cmd.Wait()
		p.code = cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-p.ended
		text := p.stderr.text()
		assert.Check(t, !strings.Contains(text, "DATA RACE"), "the program has a data race:\n%s", text)
		if t.Failed() {
			t.Logf("standard error of the program:\n%s", text)
		}
	})
	return p
}

// start starts the program with a configuration file of the given lines, on a free port, and waits until it listens.
func start(t *testing.T, upstreamURL string, lines ...string) *process {
	t.Helper()
	return startEnv(t, nil, upstreamURL, lines...)
}

func startEnv(t *testing.T, env []string, upstreamURL string, lines ...string) *process {
	t.Helper()
	file := writeConfig(t, append([]string{"[proxy]", fmt.Sprintf("upstream_url = %q", upstreamURL)}, lines...)...)
	p := launch(t, exec.Command(binary, "--listen", "127.0.0.1:0", "--config", file), env...)
	p.addr = p.state("running")["addr"].(string)
	return p
}

func writeConfig(t testing.TB, lines ...string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "proxy.toml")
	assert.NilError(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	return path
}

// url returns the address of a path of the program.
func (p *process) url(path string) string { return "http://" + p.addr + path }

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	assert.NilError(p.t, p.cmd.Process.Signal(sig))
}

// state waits for the log line of a state, and returns it.
func (p *process) state(name string) entry {
	p.t.Helper()
	return p.logged("state "+name, func(e entry) bool { return e["state"] == name })
}

// logged waits for the first log line that match accepts, and returns it.
func (p *process) logged(what string, match func(entry) bool) entry {
	p.t.Helper()
	return p.loggedTimes(what, 1, match)
}

// loggedTimes waits for the nth log line that match accepts, and returns it.
func (p *process) loggedTimes(what string, n int, match func(entry) bool) (logged entry) {
	p.t.Helper()
	poll.WaitOn(p.t, func(poll.LogT) poll.Result {
		ended := p.hasEnded()
		found := slices.DeleteFunc(p.stderr.entries(), func(e entry) bool { return !match(e) })
		switch {
		case len(found) >= n:
			logged = found[n-1]
			return poll.Success()
		case ended:
			return poll.Error(fmt.Errorf("the program has ended and never logged this: %s", what))
		}
		return poll.Continue("the program has not logged this: %s", what)
	}, poll.WithTimeout(patience), poll.WithDelay(time.Millisecond))
	return logged
}

// hasEnded reports whether the program has exited, so that its log is complete.
func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// exit waits for the program's end and returns its code.
func (p *process) exit() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("the program has not exited within %v", patience)
	}
	return p.code
}

// pollMetric waits until /metrics shows the line.
func (p *process) pollMetric(line string) {
	p.t.Helper()
	poll.WaitOn(p.t, func(poll.LogT) poll.Result {
		_, text := get(p.t, p.url("/metrics"))
		return poll.Compare(cmp.Contains("\n"+text, "\n"+line+"\n"))
	}, poll.WithTimeout(patience), poll.WithDelay(5*time.Millisecond))
}

// entry is a line of standard error, decoded.
type entry map[string]any

// lineLog collects standard error.
type lineLog struct {
	mu      sync.Mutex
	written []byte
}

func (l *lineLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written = append(l.written, p...)
	return len(p), nil
}

func (l *lineLog) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.written)
}

// entries returns the lines that are JSON objects.
func (l *lineLog) entries() (entries []entry) {
	for line := range strings.Lines(l.text()) {
		var e entry
		if json.Unmarshal([]byte(line), &e) == nil {
			entries = append(entries, e)
		}
	}
	return entries
}
