// Package workflows tests the scripts that the workflows call.
package workflows

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// repository is the tree under test.
const repository = "../.."

const manifest = `apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      containers:
        - image: ghcr.io/basher83/anthropic-oauth-proxy@sha256:DIGEST
`

func withDigest(digit string) string {
	return strings.Replace(manifest, "DIGEST", strings.Repeat(digit, 64), 1)
}

// A checkout is a shallow clone, as actions/checkout makes it, of a repository that stands for GitHub's.
type checkout struct{ origin, work string }

func newCheckout(t *testing.T) checkout {
	t.Helper()
	dir := t.TempDir()
	c := checkout{origin: filepath.Join(dir, "origin.git"), work: filepath.Join(dir, "work")}
	first := filepath.Join(dir, "first")
	git(t, dir, "init", "--quiet", "--initial-branch", "main", "--bare", c.origin)
	git(t, dir, "init", "--quiet", "--initial-branch", "main", first)
	assert.NilError(t, os.WriteFile(filepath.Join(first, "README.md"), []byte("main\n"), 0o644))
	git(t, first, "add", "--all")
	git(t, first, "commit", "--quiet", "--message", "first")
	git(t, first, "push", "--quiet", c.origin, "main")
	git(t, dir, "clone", "--quiet", "--depth", "1", "file://"+c.origin, c.work)
	return c
}

func (c checkout) pushDeploy(t *testing.T, stdin string, args ...string) (string, error) {
	t.Helper()
	script, err := filepath.Abs(repository + "/.github/push-deploy.sh")
	assert.NilError(t, err)
	cmd := command(c.work, script, args...)
	cmd.Stdin = strings.NewReader(stdin)
	output, err := cmd.CombinedOutput()
	return string(output), err
}

func command(dir, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@localhost", "GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@localhost")
	return cmd
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	output, err := command(dir, "git", args...).CombinedOutput()
	assert.NilError(t, err, "git %s: %s", strings.Join(args, " "), output)
	return strings.TrimSpace(string(output))
}

func TestPushDeploy(t *testing.T) {
	c := newCheckout(t)
	commits := func() string { return git(t, c.origin, "rev-list", "--count", "deploy") }

	output, err := c.pushDeploy(t, withDigest("a"))
	assert.NilError(t, err, output)
	assert.Equal(t, git(t, c.origin, "ls-tree", "-r", "--name-only", "deploy"), "k8s/kustomization.yaml\nk8s/manifest.yaml")
	assert.Equal(t, git(t, c.origin, "show", "deploy:k8s/manifest.yaml"), strings.TrimSpace(withDigest("a")))
	assert.Assert(t, cmp.Contains(git(t, c.origin, "show", "deploy:k8s/kustomization.yaml"), "  - manifest.yaml"))
	assert.Equal(t, commits(), "1")
	assert.Assert(t, cmp.Contains(git(t, c.origin, "log", "--format=%s", "-1", "deploy"), git(t, c.work, "rev-parse", "HEAD")))
	assert.Equal(t, git(t, c.work, "status", "--porcelain"), "", "the checkout itself should be as it was")

	output, err = c.pushDeploy(t, withDigest("a"))
	assert.NilError(t, err, output)
	assert.Assert(t, cmp.Contains(output, "nothing changed on the branch deploy"))
	assert.Equal(t, commits(), "1")

	output, err = c.pushDeploy(t, withDigest("b"), "--dry-run")
	assert.NilError(t, err, output)
	assert.Assert(t, cmp.Contains(output, "+        - image: ghcr.io/basher83/anthropic-oauth-proxy@sha256:bbbb"))
	assert.Equal(t, commits(), "1")

	output, err = c.pushDeploy(t, withDigest("b"))
	assert.NilError(t, err, output)
	assert.Equal(t, git(t, c.origin, "show", "deploy:k8s/manifest.yaml"), strings.TrimSpace(withDigest("b")))
	assert.Equal(t, commits(), "2")

	// The branch moves on under other hands; the next run, from a fresh checkout or this one, builds on that.
	output, err = newCheckoutOf(t, c.origin).pushDeploy(t, withDigest("c"))
	assert.NilError(t, err, output)
	output, err = c.pushDeploy(t, withDigest("d"))
	assert.NilError(t, err, output)
	assert.Equal(t, commits(), "4")
}

func newCheckoutOf(t *testing.T, origin string) checkout {
	t.Helper()
	c := checkout{origin: origin, work: filepath.Join(t.TempDir(), "work")}
	git(t, ".", "clone", "--quiet", "--depth", "1", "file://"+origin, c.work)
	return c
}

func TestPushDeployRefuses(t *testing.T) {
	for _, c := range []struct{ name, stdin, message string }{
		{"nothing", "", "names no image"},
		{"a text without images", "kind: Service\n", "names no image"},
		{"an image that ko has not resolved", "- image: ko://example.com/cmd\n", "pinned by its digest"},
		{"a tag", "- image: ghcr.io/basher83/anthropic-oauth-proxy:latest\n", "pinned by its digest"},
		{"one tag among digests", withDigest("a") + "        - image: busybox\n", "- image: busybox"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkout := newCheckout(t)
			output, err := checkout.pushDeploy(t, c.stdin)
			assert.Assert(t, err != nil)
			assert.Assert(t, cmp.Contains(output, c.message))
			assert.Equal(t, git(t, checkout.origin, "for-each-ref", "refs/heads/deploy"), "")
		})
	}
}
