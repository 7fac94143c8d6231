package delivery

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"gotest.tools/v3/assert"
)

// A koRun is one call of ko in a source tree. It pushes to the registry of the tests and builds on the base found there.
type koRun struct {
	dir   string
	repo  string   // below the registry; the same content has the same digest in every repository
	env   []string // on top of the environment of the tests
	stdin []byte
}

func (r koRun) do(args ...string) (stdout, stderr string, err error) {
	bin, err := koBinary()
	if err != nil {
		return "", "", err
	}
	host, err := registryHost()
	if err != nil {
		return "", "", err
	}
	cmd := exec.Command(bin, args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(),
		"KO_DOCKER_REPO="+host+"/"+r.repo,
		"KO_DEFAULTBASEIMAGE="+host+"/base",
		"DOCKER_CONFIG="+filepath.Join(scratch, "no-docker-config"), // no credential helper of this machine is asked
		"GOFLAGS=-buildvcs=auto",                                    // the machine's own flags must not hide what .ko.yaml forgets
	)
	cmd.Env = append(cmd.Env, r.env...)
	cmd.Stdin = bytes.NewReader(r.stdin)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		return "", "", fmt.Errorf("ko %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(log.Bytes()))
	}
	return out.String(), log.String(), nil
}

// build is what CI does to publish. It returns the reference of the image index, by digest.
func (r koRun) build(args ...string) (string, error) {
	stdout, stderr, err := r.do(append([]string{"build", "--bare", "./" + command}, args...)...)
	if err != nil {
		return "", err
	}
	// ko says nothing when no entry of .ko.yaml fits: it builds with its defaults, and the result looks fine.
	if !strings.Contains(stderr, "Using build config anthropic-oauth-proxy for "+importPath) {
		return "", fmt.Errorf("ko did not use the build config anthropic-oauth-proxy: "+
			"builds[0].main in .ko.yaml must be ./%s; ko said: %s", command, stderr)
	}
	return strings.TrimSpace(stdout), nil
}

// resolve is what CI does to the rendered manifests before they go to the branch deploy.
func (r koRun) resolve() (string, error) {
	resolved, _, err := r.do("resolve", "--bare", "-f", "-")
	if err != nil {
		return "", fmt.Errorf("%w\nthe image in k8s/deployment.yaml must be ko://%s, the import path of the command", err, importPath)
	}
	return resolved, nil
}

// requireKo skips, or fails in CI, when ko cannot be had.
func requireKo(t *testing.T) {
	t.Helper()
	if _, err := koBinary(); err != nil {
		unavailable(t, "ko cannot be installed (is the Go module proxy within reach?): %v", err)
	}
}

// builtIndex is the image as this tree makes it, built once for all tests that look at it.
func builtIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	requireKo(t)
	reference, err := builtReference()
	assert.NilError(t, err)
	ref, err := name.NewDigest(reference)
	assert.NilError(t, err)
	index, err := remote.Index(ref)
	assert.NilError(t, err)
	return index
}

var builtReference = sync.OnceValues(func() (string, error) {
	dir, err := checkout()
	if err != nil {
		return "", err
	}
	return koRun{dir: dir, repo: "image"}.build()
})
