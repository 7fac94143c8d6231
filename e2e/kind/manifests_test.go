// Package kind holds the check in a real cluster (check.sh). Its Go tests check the manifests without a cluster.
package kind

import (
	"os"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/basher83/anthropic-oauth-proxy/e2e/pod"
)

func TestOverlayChangesOnlyTheUpstream(t *testing.T) {
	deployed, err := pod.Render("../../k8s")
	assert.NilError(t, err)
	checked, err := pod.Render("overlay")
	assert.NilError(t, err)
	assert.Equal(t, len(checked), len(deployed)+1, "the overlay should add its egress policy and nothing else")

	const deployment = "Deployment oauth-proxy"
	want := deployed[deployment].(*appsv1.Deployment)
	args := &want.Spec.Template.Spec.Containers[0].Args
	*args = append(*args, "--upstream=http://upstream.probe.svc.cluster.local:8080")
	for name, object := range deployed {
		assert.DeepEqual(t, checked[name], object)
	}
}

// probe.yaml repeats names and labels from k8s/. They must be the same.
func TestProbeFitsTheDeployment(t *testing.T) {
	deployed, err := pod.Render("../../k8s")
	assert.NilError(t, err)
	probeYAML, err := os.ReadFile("probe.yaml")
	assert.NilError(t, err)
	probe, err := pod.Decode(string(probeYAML))
	assert.NilError(t, err)

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
