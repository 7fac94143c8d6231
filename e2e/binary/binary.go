// Package binary builds the product once per test program and runs it as a user would: as a
// process with a configuration file, watched through /health, its log and its exit code.
package binary

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/poll"
)

// patience is how long anything that should happen at once may take on a machine that is busy
// compiling something else. Only a failing test ever waits that long.
const patience = 30 * time.Second

var path string // set by Main

// Main is what a package's TestMain calls: it builds the binary, runs the tests and cleans up.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "anthropic-oauth-proxy-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "folder for the binary:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	path = filepath.Join(dir, "anthropic-oauth-proxy")
	if err := Build(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Build compiles the command of the module that stands around this one, with further flags of go build.
func Build(to string, flags ...string) error {
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	root := filepath.Dir(filepath.Dir(strings.TrimSpace(string(gomod))))
	cmd := exec.Command("go", append(append([]string{"build", "-o", to}, flags...), "./cmd/anthropic-oauth-proxy")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the proxy in %s: %w\n%s", root, err, out)
	}
	return nil
}

// Config is what differs between tests.
type Config struct {
	Upstream string
	CAFile   string   // the CA of an https upstream, for SSL_CERT_FILE
	Proxy    string   // further lines of the [proxy] section
	Headers  string   // the header rules; default: what the binary does without any
	Secrets  []string // text that must not appear in anything the process prints
}

// Process is the running binary.
type Process struct {
	URL string

	cmd  *exec.Cmd
	log  *logReader
	done chan struct{} // closed when the process is gone
	term sync.Once     // a second SIGTERM would not be polite any more
}

// Start runs the binary until the end of the test and waits until it is healthy. At the end it
// must stop on SIGTERM with exit code 0, and must have printed nothing but JSON lines, none of
// which contains a secret.
func Start(t *testing.T, c Config) *Process {
	t.Helper()
	file := filepath.Join(t.TempDir(), "anthropic-oauth-proxy.toml")
	text := fmt.Sprintf("%s\n[proxy]\nlisten_addr = \"127.0.0.1:0\"\nupstream_url = %q\n%s\n", c.Headers, c.Upstream, c.Proxy)
	assert.NilError(t, os.WriteFile(file, []byte(text), 0o600))

	p := &Process{
		cmd:  exec.Command(path, "--config", file, "--log-level", "debug"),
		log:  newLogReader(),
		done: make(chan struct{}),
	}
	// Nothing of the developer's own environment: no proxy, no credential, no configuration.
	p.cmd.Env = []string{"SSL_CERT_FILE=" + c.CAFile, "HOME=" + t.TempDir()}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	assert.NilError(t, p.cmd.Start())
	go func() {
		_ = p.cmd.Wait() // Stop reads the state
		close(p.done)
	}()
	t.Cleanup(func() {
		code := p.Stop(t)
		if t.Failed() {
			t.Logf("what the proxy printed:\n%s", p.log)
		}
		assert.Check(t, code == 0, "the proxy ended with exit code %d after SIGTERM, want 0", code)
		p.log.check(t, c.Secrets)
	})
	poll.WaitOn(t, p.healthy, poll.WithTimeout(patience), poll.WithDelay(10*time.Millisecond))
	return p
}

// healthy looks for the address in the log, because the test lets the system choose the port, and
// then asks there.
func (p *Process) healthy(poll.LogT) poll.Result {
	select {
	case <-p.done:
		return poll.Error(fmt.Errorf("the proxy ended (%v) instead of serving:\n%s", p.cmd.ProcessState, p.log))
	default:
	}
	lines, err := p.log.lines()
	if err != nil {
		return poll.Error(err)
	}
	for _, line := range lines {
		if addr, ok := line["addr"].(string); ok && line["state"] == "running" {
			p.URL = "http://" + addr
		}
	}
	if p.URL == "" {
		return poll.Continue("no log line with state running and an addr in:\n%s", p.log)
	}
	resp, err := http.Get(p.URL + "/health")
	if err != nil {
		return poll.Continue("%v", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return poll.Continue("/health answers %s", resp.Status)
	}
	return poll.Success()
}

// Terminate asks the process to end, as Kubernetes does, and does not wait for it.
func (p *Process) Terminate(t *testing.T) {
	t.Helper()
	p.term.Do(func() {
		select {
		case <-p.done:
		default:
			assert.Check(t, p.cmd.Process.Signal(syscall.SIGTERM))
		}
	})
}

// Stop asks the process to end, waits for that, and returns its exit code.
func (p *Process) Stop(t *testing.T) int {
	t.Helper()
	p.Terminate(t)
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill() // it is reported below
		<-p.done
		t.Errorf("the proxy was still running %v after SIGTERM, with no request left", patience)
	}
	return p.cmd.ProcessState.ExitCode()
}
