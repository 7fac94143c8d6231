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

// repository is the tree under test: these tests run in e2e/delivery.
const repository = "../.."

// scratch lives as long as the test binary: what several tests share stands there (ko, the first image).
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

// unavailable ends a test for want of a tool. At a desk that is a skip; in CI every tool must be there, so it is a failure.
func unavailable(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// source is a copy of the repository as it is now. Everything is built from it, so that every test of a run sees the same source,
// even while somebody goes on editing.
var source = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(scratch, "source")
	return dir, checkout.Copy(repository, dir)
})

// koBinary installs ko as it was released, with the dependencies of its own go.mod. Ours need not name them.
var koBinary = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("go", "install", "github.com/google/ko@"+koVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+scratch, "GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=0", "GOOS=", "GOARCH=")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install ko %s: %w: %s", koVersion, err, bytes.TrimSpace(output))
	}
	return filepath.Join(scratch, "ko"), nil
})
