// Package binary builds the product and runs it as a user would, as a process with a configuration file. It watches the process
// through /health, /metrics, the log, the exit code and, on Linux, the kernel's statistics. Tests call Main and Start; programs call
// Build and Launch.
package binary

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// Patience is a generous limit for what should happen at once, so that tests pass on a busy machine. Only a failing test waits that
// long.
const Patience = 30 * time.Second

var path string // set by Main

// Main is what a package's TestMain calls: it builds the binary, runs the tests and cleans up.
func Main(m *testing.M, flags ...string) int {
	dir, err := os.MkdirTemp("", "anthropic-oauth-proxy-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "folder for the binary:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	path = filepath.Join(dir, "anthropic-oauth-proxy")
	if err := Build(path, flags...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Root returns the folder of the main module, which contains this one.
func Root() (string, error) {
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(filepath.Dir(strings.TrimSpace(string(gomod)))), nil
}

// Build compiles the main module's command, with additional flags for go build.
func Build(to string, flags ...string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	cmd := exec.Command("go", append(append([]string{"build", "-o", to}, flags...), "./cmd/anthropic-oauth-proxy")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the proxy in %s: %w\n%s", root, err, out)
	}
	return nil
}

// Config holds what differs between tests.
type Config struct {
	Upstream string
	CAFile   string   // the CA of an https upstream, for SSL_CERT_FILE
	Proxy    string   // additional lines for the [proxy] section
	Headers  string   // the header rules; default: none, so the built-in rule applies
	Secrets  []string // text that must not appear in anything the process prints

	Text   string   // the whole configuration, instead of Proxy and Headers
	Flags  []string // instead of --log-level debug
	Env    []string // additional environment variables
	Under  []string // a command that runs the binary, such as a shell that sets a limit first
	Binary string   // default: the one that Main built
}

// Start runs the binary until the end of the test, and returns when it is healthy. At the end of the test the binary must exit with
// code 0 after SIGTERM. All it printed must be JSON lines without secrets.
func Start(t *testing.T, c Config) *Process {
	t.Helper()
	p, err := Launch(t.TempDir(), c)
	assert.NilError(t, err)
	t.Cleanup(func() {
		code := p.Stop(t)
		if t.Failed() {
			t.Logf("what the proxy printed:\n%s", p.Printed())
		}
		assert.Check(t, code == 0, "the proxy ended with exit code %d after SIGTERM, want 0", code)
		assert.Check(t, p.Clean(c.Secrets...))
	})
	return p
}

// Launch runs the binary with its files in dir, and returns when it is healthy. It passes on nothing of the caller's environment.
func Launch(dir string, c Config) (*Process, error) {
	if c.Text == "" {
		c.Text = fmt.Sprintf("%s\n[proxy]\n%s\n", c.Headers, c.Proxy)
	}
	if c.Flags == nil {
		c.Flags = []string{"--log-level", "debug"}
	}
	if c.Binary == "" {
		c.Binary = path
	}
	file := filepath.Join(dir, "anthropic-oauth-proxy.toml")
	if err := os.WriteFile(file, []byte(c.Text), 0o600); err != nil {
		return nil, err
	}
	args := append(c.Under[:len(c.Under):len(c.Under)], c.Binary, "--config", file, "--listen", "127.0.0.1:0", "--upstream", c.Upstream)
	args = append(args, c.Flags...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append([]string{"SSL_CERT_FILE=" + c.CAFile, "SSL_CERT_DIR=" + dir, "HOME=" + dir}, c.Env...)
	p := newProcess(cmd)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := p.start(); err != nil {
		return nil, err
	}
	if err := p.healthy(); err != nil {
		p.Kill()
		return nil, fmt.Errorf("%w:\n%s", err, p.Printed())
	}
	return p, nil
}

// healthy takes the address from the log, because the system chooses the port, and then requests /health.
func (p *Process) healthy() error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	line, err := p.Wait(ctx, "with state running", func(line Line) bool { return line["state"] == "running" })
	if err != nil {
		return err
	}
	addr, ok := line["addr"].(string)
	if !ok {
		return errors.New("the line with state running has no addr")
	}
	p.URL = "http://" + addr
	_, err = Get(p.URL + "/health")
	return err
}
