package claudecode_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// version is pinned because a new one may send beta flags that the stand-in does not know yet.
// To update it, change it, run the test, and add the new flags that the API accepts to standin/betas.go.
const version = "2.1.330"

// install fetches Claude Code with npm into a temporary folder. It runs none of the package's
// scripts and needs no Node.js afterwards, because the platform's package is one program.
func install(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("skipped with -short: Claude Code is a download of about 100 MB")
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		unavailable(t, "npm is not on the PATH, so Claude Code cannot be fetched")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "install", "--prefix", dir, "--ignore-scripts", "--no-audit", "--no-fund", "--no-save",
		"@anthropic-ai/claude-code@"+version)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		unavailable(t, "npm cannot fetch Claude Code %s: %v\n%s", version, err, out)
	}
	// npm picks the packages for this platform. On Linux it may pick two, and only one of them
	// finds its C library.
	programs, err := filepath.Glob(filepath.Join(dir, "node_modules", "@anthropic-ai", "claude-code-*", "claude"))
	assert.NilError(t, err)
	for _, program := range programs {
		if out, err := exec.CommandContext(ctx, program, "--version").Output(); err == nil {
			assert.Assert(t, strings.HasPrefix(string(out), version), "want version %s, got %s", version, out)
			return program
		}
	}
	unavailable(t, "Claude Code %s has no program that runs on %s/%s (tried %v)", version, runtime.GOOS, runtime.GOARCH, programs)
	return ""
}

// unavailable skips the test. In CI it fails the test.
func unavailable(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf("skipped: "+format, args...)
}

// run asks Claude Code one question in an empty folder, with only the given environment. It can
// reach only the proxy: its other requests go to a port on which nobody listens.
func run(t *testing.T, program, proxy string, env []string, files map[string]string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		assert.NilError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-p", "hello")
	cmd.Dir = dir
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + t.TempDir(),
		"ANTHROPIC_BASE_URL=" + proxy,
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
		"DISABLE_AUTOUPDATER=1",
		"HTTPS_PROXY=http://127.0.0.1:9", "HTTP_PROXY=http://127.0.0.1:9", "NO_PROXY=127.0.0.1",
	}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
