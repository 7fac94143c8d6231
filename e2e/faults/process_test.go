package faults

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"gotest.tools/v3/assert"
)

// patience is how long a test waits for what must happen. Nothing waits for it unless it fails.
const patience = 30 * time.Second

// program is the path of the binary under test.
var program string

func TestMain(m *testing.M) { os.Exit(prepare(m)) }

func prepare(m *testing.M) int {
	flag.Parse()
	explicit := false
	flag.Visit(func(f *flag.Flag) { explicit = explicit || f.Name == "test.parallel" })
	if !explicit {
		flag.Set("test.parallel", "8") // the tests wait for the clock more than for the processor
	}
	if program = os.Getenv("FAULTS_BINARY"); program != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "anthropic-oauth-proxy-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "anthropic-oauth-proxy")
	var flags []string
	if underRace() {
		flags = append(flags, "-race")
	}
	if err := binary.Build(program, flags...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// underRace reports whether the race detector watches. It multiplies the memory of what it watches.
func underRace() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// process is the binary, running.
type process struct {
	cmd   *exec.Cmd
	addr  string
	log   *logLines
	ended chan struct{}
}

// launch runs the binary with nothing of this machine's environment, until it listens.
func launch(t *testing.T, command []string, env []string, config string) *process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "proxy.toml")
	assert.NilError(t, os.WriteFile(file, []byte(config), 0o600))
	command = append(command, program, "--config", file, "--listen", "127.0.0.1:0", "--log-level", "debug")
	p := &process{cmd: exec.Command(command[0], command[1:]...), log: newLogLines(), ended: make(chan struct{})}
	p.cmd.Env = append([]string{"HOME=" + t.TempDir(), "GORACE=atexit_sleep_ms=10", "SSL_CERT_DIR=" + t.TempDir()}, env...)
	stderr, err := p.cmd.StderrPipe()
	assert.NilError(t, err)
	assert.NilError(t, p.cmd.Start())
	go func() {
		defer close(p.ended)
		lines := bufio.NewReader(stderr)
		for {
			line, err := lines.ReadString('\n')
			if line != "" {
				p.log.add(line)
			}
			if err != nil {
				break
			}
		}
		p.cmd.Wait()
	}()
	t.Cleanup(func() {
		if t.Failed() { // otherwise it has ended already
			p.cmd.Process.Signal(syscall.SIGQUIT) // Go answers with the stacks of all goroutines
			select {
			case <-p.ended:
			case <-time.After(patience):
			}
		}
		p.cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("the log of the proxy:\n%s", p.log.text())
		}
	})
	p.addr = p.log.wait(t, "with state running", p.ended, func(l line) bool { return l["state"] == "running" })["addr"].(string)
	return p
}

// stop asks the process to end, with no request left, and looks at what it leaves.
func (p *process) stop(t *testing.T) {
	t.Helper()
	assert.NilError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.ended:
		assert.Check(t, p.cmd.ProcessState.ExitCode() == 0, "the proxy ended with exit code %d after SIGTERM", p.cmd.ProcessState.ExitCode())
	case <-time.After(patience):
		t.Error("the proxy still ran long after SIGTERM, with no request left")
	}
	p.log.check(t)
}

// line is a line of the log.
type line map[string]any

// logLines collects what the process prints.
type logLines struct {
	mu       sync.Mutex
	lines    []line
	raw      strings.Builder
	finished map[string]line // the line of a finished request, by its path
	changed  chan struct{}   // closed and replaced at every line
}

func newLogLines() *logLines {
	return &logLines{finished: map[string]line{}, changed: make(chan struct{})}
}

func (l *logLines) add(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.raw.WriteString(text)
	var fields line
	if json.Unmarshal([]byte(text), &fields) == nil {
		l.lines = append(l.lines, fields)
		if path, ok := fields["path"].(string); ok && fields["msg"] == "request" {
			l.finished[path] = fields
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *logLines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.raw.String()
}

// wait waits for a line that match accepts.
func (l *logLines) wait(t *testing.T, what string, ended chan struct{}, match func(line) bool) (found line) {
	t.Helper()
	l.await(t, what, ended, func() bool {
		for _, fields := range l.lines {
			if match(fields) {
				found = fields
				return true
			}
		}
		return false
	})
	return found
}

// request waits for the line of the finished request for a path. Tests give every request a path of its own.
func (l *logLines) request(t *testing.T, path string) (found line) {
	t.Helper()
	l.await(t, "of a finished request for "+path, nil, func() bool {
		found = l.finished[path]
		return found != nil
	})
	return found
}

func (l *logLines) await(t *testing.T, what string, ended chan struct{}, reached func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		l.mu.Lock()
		ok, changed := reached(), l.changed
		l.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
			continue
		case <-ended:
			t.Fatalf("the proxy ended before it logged a line %s:\n%s", what, l.text())
		case <-deadline:
			t.Fatalf("no log line %s", what)
		}
	}
}

// What upstreams send that is not HTTP, and what clients send as a credential. No log line may contain either.
const (
	hush   = "hush-hush"
	secret = "sk-ant-oat01-faults"
)

// check looks at the whole log of a process that is gone.
func (l *logLines) check(t *testing.T) {
	t.Helper()
	text := l.text()
	for printed := range strings.Lines(text) {
		assert.Check(t, json.Valid([]byte(printed)), "the proxy printed a line that is not JSON: %s", printed)
	}
	for _, unwanted := range []string{hush, secret, "DATA RACE", "panic"} {
		assert.Check(t, !strings.Contains(text, unwanted), "the log contains %q", unwanted)
	}
}
