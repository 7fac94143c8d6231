package delivery

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// What Argo CD will read: the same objects as in k8s/, each of which still decodes, with the digest in the place of ko://.
func TestResolvedManifestsHoldOnlyTheDigest(t *testing.T) {
	builtIndex(t)
	reference, err := builtReference()
	assert.NilError(t, err)
	dir, err := checkout()
	assert.NilError(t, err)
	documents, err := render(dir)
	assert.NilError(t, err)

	resolved, err := koRun{dir: dir, repo: "image", stdin: []byte(strings.Join(documents, "---\n"))}.resolve()
	assert.NilError(t, err)
	repo, _, _ := strings.Cut(reference, "@")
	assert.NilError(t, checkResolved(resolved, repo))
	assert.Equal(t, strings.Count(resolved, "image: "+reference+"\n"), 1, "ko resolve and ko build made two images of one source")

	var objects int
	for document := range strings.SplitSeq(resolved, "\n---\n") {
		if strings.TrimSpace(strings.Trim(document, "-")) == "" { // ko ends with an empty document
			continue
		}
		_, err := decode(document)
		assert.NilError(t, err)
		objects++
	}
	assert.Equal(t, objects, len(documents))
	t.Logf("%d objects, 1 image, %s", objects, reference)
}
