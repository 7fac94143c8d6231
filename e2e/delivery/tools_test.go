package delivery

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/basher83/anthropic-oauth-proxy/e2e/checkout"
)

const (
	module     = "github.com/basher83/anthropic-oauth-proxy"
	command    = "cmd/anthropic-oauth-proxy"
	importPath = module + "/" + command
	koVersion  = "v0.19.1"
)

// repository is the path of the tree under test, from e2e/delivery, where these tests run.
const repository = "../.."

// scratch is a folder for what several tests share (ko, the first image). It exists as long as the test binary runs.
var scratch string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "delivery")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// unavailable ends a test because a tool is missing. It skips the test on a developer's machine. In CI, which must have every tool, it
// fails the test.
func unavailable(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// source is a copy of the repository as it is now. All tests of a run build from it, so they see the same source even if somebody is
// editing.
var source = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(scratch, "source")
	return dir, checkout.Copy(repository, dir)
})

// koBinary installs ko as released, with its own go.mod's dependencies, so ours does not need them.
var koBinary = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("go", "install", "github.com/google/ko@"+koVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+scratch, "GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=0", "GOOS=", "GOARCH=")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install ko %s: %w: %s", koVersion, err, bytes.TrimSpace(output))
	}
	return filepath.Join(scratch, "ko"), nil
})
