package delivery

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/crane"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"

	"github.com/basher83/anthropic-oauth-proxy/e2e/checkout"
	"github.com/basher83/anthropic-oauth-proxy/e2e/workflows"
)

// A fork whose owner's name has capital letters. It renames nothing. It changes the one line that docs/deploy.md mentions, and its
// own settings. It merges upstream changes to every file that names the module. Then it publishes.
func TestFork(t *testing.T) {
	theImage(t) // ko is installed, and the source builds: other tests report it if not
	original, err := source()
	assert.NilError(t, err)
	upstream, fork := filepath.Join(t.TempDir(), "upstream"), filepath.Join(t.TempDir(), "fork")
	git := func(dir string, args ...string) string {
		output, err := checkout.Git(dir, args...)
		assert.NilError(t, err)
		return output
	}
	replace := func(dir, name, old, new string) {
		path := filepath.Join(dir, name)
		content, err := os.ReadFile(path)
		assert.NilError(t, err)
		changed := regexp.MustCompile(old).ReplaceAllString(string(content), new)
		assert.Assert(t, changed != string(content), "%s has nothing like %s", name, old)
		assert.NilError(t, os.WriteFile(path, []byte(changed), 0o600))
	}
	git(t.TempDir(), "clone", "--quiet", original, upstream)
	git(t.TempDir(), "clone", "--quiet", upstream, fork)

	replace(fork, "k8s/argocd/application.yaml", `github\.com/.*/`, "github.com/SomeBody/")
	replace(fork, "k8s/config.toml", `retries = \d+`, "retries = 0")
	git(fork, "commit", "--quiet", "--all", "--message", "the fork's own settings")

	for name := range strings.FieldsSeq(git(upstream, "ls-files", "*.go")) {
		if content, err := os.ReadFile(filepath.Join(upstream, name)); err == nil && strings.Contains(string(content), module+"/") {
			replace(upstream, name, "("+regexp.QuoteMeta(module)+`/.*")`, "$1 // later")
		}
	}
	replace(upstream, "k8s/argocd/application.yaml", `limit: \d+`, "limit: 7")
	replace(upstream, "cmd/anthropic-oauth-proxy/VERSION", `(?s).*`, "9.9.9\n")
	git(upstream, "commit", "--quiet", "--all", "--message", "later")
	git(fork, "pull", "--quiet", "--no-rebase", "--no-edit", "origin", "main")

	host, err := registryHost()
	assert.NilError(t, err)
	bin, err := koBinary()
	assert.NilError(t, err)
	documents, err := render(fork)
	assert.NilError(t, err)
	manifest := filepath.Join(t.TempDir(), "manifest.yaml")
	assert.NilError(t, os.WriteFile(manifest, []byte(strings.Join(documents, "---\n")), 0o600))
	commit := git(fork, "rev-parse", "HEAD")
	printed, outputs, err := workflows.Step{
		File: "publish.yml", Job: "image", Name: "Build, push and render",
		// What `just render` does, with Kustomize as a library.
		Nix: fmt.Sprintf("[ \"$1 $2\" = 'just render' ]\nshift 2\nPATH=%s:$PATH\nexec .github/resolve.sh \"$@\" <%s\n", filepath.Dir(bin), manifest),
		Env: []string{"GITHUB_REPOSITORY=SomeBody/Their-Proxy", "GITHUB_SHA=" + commit, "REGISTRY=" + host,
			"KO_DEFAULTBASEIMAGE=" + host + "/base", "DOCKER_CONFIG=" + t.TempDir()},
	}.Run(fork)
	assert.NilError(t, err, printed)
	found := regexp.MustCompile(`(?m)^image=(` + regexp.QuoteMeta(host) + `/somebody/their-proxy@sha256:[0-9a-f]{64})$`).FindStringSubmatch(outputs)
	assert.Assert(t, found != nil, "the step should name the image in lower case, but its outputs are:\n%s", outputs)
	assert.Assert(t, cmp.Contains(outputs, "image: "+found[1]+"\n"), "the manifests should name it by its digest and no tag")

	content, err := crane.Config(found[1])
	assert.NilError(t, err)
	assert.Assert(t, cmp.Contains(string(content), `"org.opencontainers.image.source":"https://github.com/SomeBody/Their-Proxy"`))
	assert.Assert(t, cmp.Contains(string(content), `"org.opencontainers.image.version":"9.9.9"`), "the fork did not publish what it merged")
	tags, err := crane.ListTags(host + "/somebody/their-proxy")
	assert.NilError(t, err)
	assert.Assert(t, cmp.Contains(tags, commit))
	for _, tag := range tags {
		assert.Assert(t, tag != "latest", "it moves after signing")
	}
}
