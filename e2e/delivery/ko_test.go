package delivery

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"gotest.tools/v3/assert"
)

var imageField = regexp.MustCompile(`(?m)^[ -]*image: (\S+)$`)

// A koRun is one call of .github/resolve.sh in a source tree, as CI makes it. It builds on the base image in the tests' registry and
// pushes there.
type koRun struct {
	dir  string
	repo string   // within the registry; the same content has the same digest in every repository
	env  []string // added to the tests' environment
}

// resolve returns the manifests with the image filled in, and the image's reference.
func (r koRun) resolve(args ...string) (manifests, reference string, err error) {
	bin, err := koBinary()
	if err != nil {
		return "", "", err
	}
	host, err := registryHost()
	if err != nil {
		return "", "", err
	}
	documents, err := render(r.dir)
	if err != nil {
		return "", "", err
	}
	cmd := exec.Command(".github/resolve.sh", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(),
		"PATH="+filepath.Dir(bin)+":"+os.Getenv("PATH"),
		"KO_DOCKER_REPO="+host+"/"+r.repo,
		"KO_DEFAULTBASEIMAGE="+host+"/base",
		"DOCKER_CONFIG="+filepath.Join(scratch, "no-docker-config"), // so that no credential helper of this machine is called
		"GITHUB_REPOSITORY=",                                        // as on a developer's machine, even if this is CI
	)
	cmd.Env = append(cmd.Env, r.env...)
	cmd.Stdin = strings.NewReader(strings.Join(documents, "---\n"))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", "", fmt.Errorf("resolve.sh %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	// If no entry of .ko.yaml fits, ko silently builds with its defaults, and the result looks fine.
	if !strings.Contains(stderr.String(), "Using build config anthropic-oauth-proxy for "+importPath) {
		return "", "", fmt.Errorf("ko did not use the build config of .ko.yaml: its main must be ./%s; ko said: %s", command, &stderr)
	}
	images := imageField.FindAllStringSubmatch(stdout.String(), -1)
	if len(images) != 1 || !strings.HasPrefix(images[0][1], host+"/"+r.repo+"@sha256:") || strings.Contains(stdout.String(), "ko://") {
		return "", "", fmt.Errorf("the resolved manifests should name one image of %s by its digest, and no ko://, but name %q", r.repo, images)
	}
	return stdout.String(), images[0][1], nil
}

// digest returns the digest of a resolved reference, without its repository.
func digest(reference string) string { return reference[strings.Index(reference, "@")+1:] }

type built struct{ manifests, reference string }

// theBuild is the image of this tree, built once for all tests.
var theBuild = sync.OnceValues(func() (built, error) {
	dir, err := source()
	if err != nil {
		return built{}, err
	}
	manifests, reference, err := koRun{dir: dir, repo: "image"}.resolve()
	return built{manifests, reference}, err
})

func theImage(t *testing.T) built {
	t.Helper()
	if _, err := koBinary(); err != nil {
		unavailable(t, "ko cannot be installed (is the Go module proxy within reach?): %v", err)
	}
	b, err := theBuild()
	assert.NilError(t, err)
	return b
}

func builtIndex(t *testing.T) v1.ImageIndex {
	t.Helper()
	ref, err := name.NewDigest(theImage(t).reference)
	assert.NilError(t, err)
	index, err := remote.Index(ref)
	assert.NilError(t, err)
	return index
}

// What Argo CD will read: the same objects as in k8s/, with the digest instead of ko://. Each must still decode.
func TestResolvedManifestsDecode(t *testing.T) {
	objects := 0
	for document := range strings.SplitSeq(theImage(t).manifests, "\n---\n") {
		if strings.TrimSpace(strings.Trim(document, "-")) == "" { // ko's output ends with an empty document
			continue
		}
		_, err := decode(document)
		assert.NilError(t, err)
		objects++
	}
	documents, err := render(repository)
	assert.NilError(t, err)
	assert.Equal(t, objects, len(documents))
}
