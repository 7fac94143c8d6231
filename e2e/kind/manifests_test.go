// Package kind holds the check in a real cluster (check.sh) and what can be said of its manifests without one.
package kind

import (
	"os"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

func TestOverlayChangesOnlyTheUpstream(t *testing.T) {
	deployed := objects(t, rendered(t, "../../k8s"))
	checked := objects(t, rendered(t, "overlay"))
	assert.Equal(t, len(checked), len(deployed)+1, "the overlay should add its egress policy and nothing else")

	const deployment = "Deployment oauth-proxy"
	want := deployed[deployment].(*appsv1.Deployment)
	args := &want.Spec.Template.Spec.Containers[0].Args
	*args = append(*args, "--upstream=http://upstream.probe.svc.cluster.local:8080")
	for name, object := range deployed {
		assert.DeepEqual(t, checked[name], object)
	}
}

// The names and labels of the other pods are written down once more in probe.yaml, and have to be those of k8s/.
func TestProbeFitsTheDeployment(t *testing.T) {
	deployed := objects(t, rendered(t, "../../k8s"))
	probeYAML, err := os.ReadFile("probe.yaml")
	assert.NilError(t, err)
	probe := objects(t, string(probeYAML))

	policy := deployed["NetworkPolicy oauth-proxy"].(*networkingv1.NetworkPolicy)
	admitted := policy.Spec.Ingress[0].From[0]
	client := probe["Job stream"].(*batchv1.Job)
	assert.DeepEqual(t, client.Spec.Template.Labels, admitted.PodSelector.MatchLabels)
	assert.Assert(t, cmp.Contains(admitted.NamespaceSelector.MatchExpressions[0].Values, client.Namespace))

	service := deployed["Service oauth-proxy"].(*corev1.Service)
	host := "http://" + service.Name + "." + service.Namespace + ".svc.cluster.local:"
	assert.Equal(t, client.Spec.Template.Spec.Containers[0].Args[1], host+"8080")
	stranger := probe["Job stranger"].(*batchv1.Job)
	assert.Equal(t, stranger.Spec.Template.Spec.Containers[0].Args[1], host+"80")

	for name, object := range probe {
		meta := object.(metav1.Object)
		assert.Assert(t, meta.GetLabels()["step"] != "", "probe.yaml: %s has no label `step`, so check.sh never applies it", name)
	}
}

func rendered(t *testing.T, folder string) string {
	t.Helper()
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), folder)
	assert.NilError(t, err)
	text, err := resources.AsYaml()
	assert.NilError(t, err)
	return string(text)
}

// objects decodes strictly: a misspelt field is an error.
func objects(t *testing.T, text string) map[string]runtime.Object {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		appsv1.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme,
	} {
		assert.NilError(t, add(scheme))
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	found := map[string]runtime.Object{}
	for document := range strings.SplitSeq(text, "\n---\n") {
		object, kind, err := decoder.Decode([]byte(document), nil, nil)
		assert.NilError(t, err, "%s", document)
		found[kind.Kind+" "+object.(metav1.Object).GetName()] = object
	}
	return found
}
