package delivery

import (
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

// application is Argo CD's Application as far as ours uses it. Its real types come with all of Argo CD.
type application struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		Annotations map[string]string `json:"annotations"`
		Finalizers  []string          `json:"finalizers"`
	} `json:"metadata"`
	Spec struct {
		Project string `json:"project"`
		Source  struct {
			RepoURL        string `json:"repoURL"`
			TargetRevision string `json:"targetRevision"`
			Path           string `json:"path"`
		} `json:"source"`
		Destination struct {
			Server    string `json:"server"`
			Namespace string `json:"namespace"`
		} `json:"destination"`
		SyncPolicy struct {
			Automated struct {
				Prune    bool `json:"prune"`
				SelfHeal bool `json:"selfHeal"`
			} `json:"automated"`
			Retry struct {
				Limit   int `json:"limit"`
				Backoff struct {
					Duration    string `json:"duration"`
					Factor      int    `json:"factor"`
					MaxDuration string `json:"maxDuration"`
				} `json:"backoff"`
			} `json:"retry"`
			SyncOptions []string `json:"syncOptions"`
		} `json:"syncPolicy"`
	} `json:"spec"`
}

// Spelling counts here, upper and lower case too: Argo CD ignores what it does not know.
func TestApplication(t *testing.T) {
	source, err := os.ReadFile(filepath.Join(repository, "k8s", "argocd", "application.yaml"))
	assert.NilError(t, err)
	var app application
	assert.NilError(t, unmarshalStrict(source, &app), "a field that is right but new also belongs into the type application of this test")

	assert.Equal(t, app.APIVersion, "argoproj.io/v1alpha1")
	assert.Equal(t, app.Kind, "Application")
	assert.Equal(t, app.Metadata.Namespace, "argocd")
	// An Application of the sidecar days has that name: turned into this one it would prune the old pod at its first sync.
	assert.Assert(t, app.Metadata.Name != "anthropic-oauth-proxy")
	assert.DeepEqual(t, app.Metadata.Finalizers, []string{"resources-finalizer.argocd.argoproj.io"})
	assert.Equal(t, app.Metadata.Annotations["argocd.argoproj.io/sync-wave"], "8", "after the Tailscale Operator, which is wave 4")

	spec := app.Spec
	assert.Equal(t, spec.Source.RepoURL, "https://"+module+".git")
	assert.Equal(t, spec.Source.TargetRevision, "deploy", "main holds ko:// references, which Kubernetes cannot pull")
	assert.Equal(t, spec.Source.Path, "k8s")
	assert.Equal(t, spec.Destination.Server, "https://kubernetes.default.svc")
	assert.Equal(t, spec.Destination.Namespace, rendered(t).namespace.Name)

	policy := spec.SyncPolicy
	assert.Assert(t, policy.Automated.Prune && policy.Automated.SelfHeal)
	assert.Equal(t, policy.Retry.Limit, 5)
	// Replace=true would drop the operator's finalizer from the Service, and the device with it.
	assert.DeepEqual(t, policy.SyncOptions, []string{"CreateNamespace=true", "ServerSideApply=true"})
}
