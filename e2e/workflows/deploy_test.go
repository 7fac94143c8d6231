package workflows

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"github.com/basher83/anthropic-oauth-proxy/e2e/checkout"
)

// repository is the tree under test.
const repository = "../.."

const manifest = `apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      containers:
        - image: ghcr.io/somebody/anthropic-oauth-proxy@sha256:DIGEST
`

func withDigest(digit string) string {
	return strings.Replace(manifest, "DIGEST", strings.Repeat(digit, 64), 1)
}

func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	output, err := checkout.Git(dir, args...)
	assert.NilError(t, err)
	return output
}

// newOrigin makes a repository that takes GitHub's place, with one commit on main.
func newOrigin(t *testing.T) string {
	t.Helper()
	origin := filepath.Join(t.TempDir(), "origin.git")
	git(t, ".", "init", "--quiet", "--initial-branch", "main", "--bare", origin)
	pushMain(t, origin)
	return origin
}

func pushMain(t *testing.T, origin string) {
	t.Helper()
	work := t.TempDir()
	git(t, work, "clone", "--quiet", origin, ".")
	git(t, work, "commit", "--quiet", "--allow-empty", "--message", "one more")
	git(t, work, "push", "--quiet", origin, "HEAD:main")
}

// clone makes a shallow clone, as actions/checkout does.
func clone(t *testing.T, origin string) string {
	t.Helper()
	dir := t.TempDir()
	git(t, dir, "clone", "--quiet", "--depth", "1", "file://"+origin, ".")
	return dir
}

func pushDeploy(t *testing.T, work, stdin string, args ...string) (string, error) {
	t.Helper()
	script, err := filepath.Abs(repository + "/.github/push-deploy.sh")
	assert.NilError(t, err)
	cmd := exec.Command(script, args...)
	cmd.Dir, cmd.Env = work, checkout.Env()
	cmd.Stdin = strings.NewReader(stdin)
	output, err := cmd.CombinedOutput()
	return string(output), err
}

func TestPushDeploy(t *testing.T) {
	origin := newOrigin(t)
	work := clone(t, origin)
	pushes := func(digit, message string, args ...string) {
		t.Helper()
		output, err := pushDeploy(t, work, withDigest(digit), args...)
		assert.NilError(t, err, output)
		assert.Assert(t, cmp.Contains(output, message))
	}
	deployed := func(digit, commits string) {
		t.Helper()
		assert.Equal(t, git(t, origin, "show", "deploy:k8s/manifest.yaml"), strings.TrimSpace(withDigest(digit)))
		assert.Equal(t, git(t, origin, "rev-list", "--count", "deploy"), commits)
	}

	pushes("a", "pushed")
	deployed("a", "1")
	assert.Equal(t, git(t, origin, "ls-tree", "-r", "--name-only", "deploy"), "k8s/kustomization.yaml\nk8s/manifest.yaml")
	assert.Assert(t, cmp.Contains(git(t, origin, "show", "deploy:k8s/kustomization.yaml"), "  - manifest.yaml"))
	assert.Assert(t, cmp.Contains(git(t, origin, "log", "--format=%s", "-1", "deploy"), git(t, work, "rev-parse", "HEAD")))
	assert.Equal(t, git(t, work, "status", "--porcelain"), "", "the checkout itself should be as it was")

	pushes("a", "nothing changed on the branch deploy")
	deployed("a", "1")
	pushes("b", "+        - image: ghcr.io/somebody/anthropic-oauth-proxy@sha256:bbbb", "--dry-run")
	deployed("a", "1")
	pushes("b", "pushed")
	deployed("b", "2")
}

// A is deployed, then B, and then somebody presses "Re-run" on A.
func TestOldPublishDoesNotRollBack(t *testing.T) {
	origin := newOrigin(t)
	a := clone(t, origin)
	output, err := pushDeploy(t, a, withDigest("a"))
	assert.NilError(t, err, output)
	pushMain(t, origin)
	b := clone(t, origin)
	output, err = pushDeploy(t, b, withDigest("b"))
	assert.NilError(t, err, output)

	output, err = pushDeploy(t, a, withDigest("a"))
	assert.NilError(t, err, output)
	assert.Equal(t, git(t, origin, "show", "deploy:k8s/manifest.yaml"), strings.TrimSpace(withDigest("b")))
	assert.Assert(t, cmp.Contains(output, "nothing pushed, the branch deploy stays as it is"))
	for _, work := range []string{a, b} {
		assert.Assert(t, cmp.Contains(output, git(t, work, "rev-parse", "HEAD")))
	}
}

// latest moves to main's head, but only after the image is signed and verified.
func TestLatestMoves(t *testing.T) {
	origin := newOrigin(t)
	work := clone(t, origin)
	copyWorkflow(t, work, "publish.yml")
	moves := func() string {
		tagged := filepath.Join(t.TempDir(), "tagged")
		printed, _, err := Step{File: "publish.yml", Job: "image", Name: "Move latest",
			Nix: "echo \"$@\" >>" + tagged,
			Env: []string{"IMAGE=image@sha256:1", "GITHUB_SHA=" + git(t, work, "rev-parse", "HEAD")}}.Run(work)
		assert.NilError(t, err)
		content, err := os.ReadFile(tagged)
		if err != nil {
			return printed
		}
		return string(content)
	}
	assert.Equal(t, moves(), "crane tag image@sha256:1 latest\n")
	pushMain(t, origin)
	assert.Assert(t, cmp.Contains(moves(), "latest stays where it is"))

	publish, err := os.ReadFile(filepath.Join(repository, ".github", "workflows", "publish.yml"))
	assert.NilError(t, err)
	position := -1
	for _, command := range []string{"just render", "cosign sign", "cosign verify", "crane tag"} {
		next := strings.Index(string(publish), "-c "+command)
		assert.Assert(t, next > position, "publish.yml: %s comes too early, or not at all", command)
		position = next
	}
}

// A release tags an image only if gh finds the attestation that publish.yml made on main for this commit.
func TestReleaseVerifies(t *testing.T) {
	work, bin := clone(t, newOrigin(t)), t.TempDir()
	copyWorkflow(t, work, "release.yml")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for _, attested := range []bool{true, false} {
		record := filepath.Join(t.TempDir(), "record")
		gh := fmt.Sprintf("#!/bin/sh\necho gh \"$@\" >>%s\nexec %t\n", record, attested)
		assert.NilError(t, os.WriteFile(filepath.Join(bin, "gh"), []byte(gh), 0o700))
		_, _, err := Step{File: "release.yml", Job: "release", Name: "Verify the image of this commit and tag it",
			Nix: "echo \"$@\" >>" + record + "\necho sha256:1",
			Env: []string{"GITHUB_REPOSITORY=SomeBody/proxy", "GITHUB_REF_NAME=v1"}}.Run(work)
		assert.Equal(t, err == nil, attested, err)
		ran, err := os.ReadFile(record)
		assert.NilError(t, err)
		commit := git(t, work, "rev-parse", "HEAD")
		want := "crane digest ghcr.io/somebody/proxy:" + commit + "\n" +
			"gh attestation verify oci://ghcr.io/somebody/proxy@sha256:1 --repo SomeBody/proxy " +
			"--signer-workflow SomeBody/proxy/.github/workflows/publish.yml --source-ref refs/heads/main --source-digest " + commit + "\n"
		if attested {
			want += "crane tag ghcr.io/somebody/proxy@sha256:1 v1\n"
		}
		assert.Equal(t, string(ran), want)
	}
}

func copyWorkflow(t *testing.T, work, name string) {
	t.Helper()
	folder := filepath.Join(".github", "workflows")
	content, err := os.ReadFile(filepath.Join(repository, folder, name))
	assert.NilError(t, err)
	assert.NilError(t, os.MkdirAll(filepath.Join(work, folder), 0o700))
	assert.NilError(t, os.WriteFile(filepath.Join(work, folder, name), content, 0o600))
}

func TestPushDeployRefuses(t *testing.T) {
	origin := newOrigin(t)
	work := clone(t, origin)
	for _, c := range []struct{ name, stdin, message string }{
		{"nothing", "", "names no image"},
		{"a text without images", "kind: Service\n", "names no image"},
		{"an image that ko has not resolved", "- image: ko://example.com/cmd\n", "pinned by its digest"},
		{"a tag", "- image: ghcr.io/somebody/anthropic-oauth-proxy:latest\n", "pinned by its digest"},
		{"one tag among digests", withDigest("a") + "        - image: busybox\n", "- image: busybox"},
	} {
		t.Run(c.name, func(t *testing.T) {
			output, err := pushDeploy(t, work, c.stdin)
			assert.Assert(t, err != nil)
			assert.Assert(t, cmp.Contains(output, c.message))
			assert.Equal(t, git(t, origin, "for-each-ref", "refs/heads/deploy"), "")
		})
	}
}
