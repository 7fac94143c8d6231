package delivery

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
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

// checkout is the repository as it is now, changes that are not committed included. What is built is built from it, so that
// every test of a run sees the same source, even while somebody goes on editing.
var checkout = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(scratch, "checkout")
	return dir, clone(repository, dir)
})

// clone copies what git tracks or would track to a new repository with one commit.
func clone(from, to string) error {
	names, err := git(from, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return fmt.Errorf("%w\nthe tests copy the repository by git's list: run them in a git checkout", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(names, "\x00"), "\x00") {
		if err := copyFile(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"init", "--quiet"}, {"add", "--all"}, {"commit", "--quiet", "--no-verify", "--no-gpg-sign", "--message", "copy"}} {
		if _, err := git(to, args...); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) { // deleted, and the deletion not yet committed
		return nil
	}
	if err != nil {
		return err
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, content, info.Mode().Perm())
}

func git(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(),
		"GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@localhost", "GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@localhost")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	output, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(output), nil
}

// koBinary installs ko as it was released, with the dependencies of its own go.mod: a hundred modules that ours need not know.
var koBinary = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("go", "install", "github.com/google/ko@"+koVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+scratch, "GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=0", "GOOS=", "GOARCH=")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install ko %s: %w: %s", koVersion, err, bytes.TrimSpace(output))
	}
	return filepath.Join(scratch, "ko"), nil
})
