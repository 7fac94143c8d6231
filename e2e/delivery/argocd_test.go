package delivery

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"gotest.tools/v3/assert"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Argo CD ignores unknown fields, so this test checks their spelling, including upper and lower case.
func TestApplication(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(repository, "k8s", "argocd", "application.yaml"))
	assert.NilError(t, err)
	var app map[string]any
	assert.NilError(t, unmarshalStrict(content, &app))
	field := func(path ...string) any {
		value, _, err := unstructured.NestedFieldNoCopy(app, path...)
		assert.NilError(t, err)
		return value
	}

	assert.Equal(t, field("apiVersion"), "argoproj.io/v1alpha1")
	assert.Equal(t, field("kind"), "Application")
	assert.Equal(t, field("metadata", "namespace"), "argocd")
	// The old Application has that name. With the same name this one would replace it and prune the old pod at its first sync.
	assert.Assert(t, field("metadata", "name") != "anthropic-oauth-proxy")
	assert.DeepEqual(t, field("metadata", "finalizers"), []any{"resources-finalizer.argocd.argoproj.io"})
	assert.Equal(t, field("metadata", "annotations", "argocd.argoproj.io/sync-wave"), "8", "after the Tailscale Operator, which is wave 4")

	url, _ := field("spec", "source", "repoURL").(string) // of any owner: a fork may change it
	assert.Assert(t, regexp.MustCompile(`^https://github\.com/[^/]+/[^/]+\.git$`).MatchString(url), url)
	assert.Equal(t, field("spec", "source", "targetRevision"), "deploy", "main holds ko:// references, which Kubernetes cannot pull")
	assert.Equal(t, field("spec", "source", "path"), "k8s")
	assert.Equal(t, field("spec", "destination", "server"), "https://kubernetes.default.svc")
	assert.Equal(t, field("spec", "destination", "namespace"), rendered(t).namespace.Name)

	assert.DeepEqual(t, field("spec", "syncPolicy", "automated"), map[string]any{"prune": true, "selfHeal": true})
	assert.Equal(t, field("spec", "syncPolicy", "retry", "limit"), int64(5))
	// Replace=true would drop the operator's finalizer from the Service, and the device with it.
	assert.DeepEqual(t, field("spec", "syncPolicy", "syncOptions"), []any{"CreateNamespace=true", "ServerSideApply=true"})
}
