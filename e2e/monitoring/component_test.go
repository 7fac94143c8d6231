package monitoring

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/basher83/anthropic-oauth-proxy/e2e/pod"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"gotest.tools/v3/assert"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// repository is the path of the tree under test, from e2e/monitoring, where these tests run.
const repository = "../.."

const namespace = "anthropic-oauth-proxy"

// component is what the component adds when it is enabled, and the Deployment that it must fit.
type component struct {
	monitor    *monitoringv1.PodMonitor
	rule       *monitoringv1.PrometheusRule
	policy     *networkingv1.NetworkPolicy
	dashboard  dashboard
	deployment *appsv1.Deployment
}

// load renders a copy of k8s/ with the components enabled as monitoring/kustomization.yaml describes.
func load(t *testing.T, components ...string) (c component) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "k8s")
	assert.NilError(t, os.CopyFS(dir, os.DirFS(filepath.Join(repository, "k8s"))))
	file, err := os.OpenFile(filepath.Join(dir, "kustomization.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	assert.NilError(t, err)
	_, err = fmt.Fprintf(file, "\ncomponents: [%s]\n", strings.Join(components, ", "))
	assert.NilError(t, errors.Join(err, file.Close()))
	objects, err := pod.Render(dir)
	assert.NilError(t, err)
	for name, object := range objects {
		space := object.(metav1.Object).GetNamespace()
		assert.Assert(t, space == namespace || name == "Namespace "+namespace, "the %s is in the namespace %q, not %s", name, space, namespace)
		switch o := object.(type) {
		case *monitoringv1.PodMonitor:
			c.monitor = o
		case *monitoringv1.PrometheusRule:
			c.rule = o
		case *networkingv1.NetworkPolicy:
			if o.Name == "oauth-proxy-metrics" {
				c.policy = o
			}
		case *corev1.ConfigMap: // Grafana's sidecar looks for this label and value, and a name that ends in .json
			if o.Labels["grafana_dashboard"] == "1" {
				c.dashboard = decodeDashboard(t, o.Data["oauth-proxy.json"])
			}
		case *appsv1.Deployment:
			c.deployment = o
		}
	}
	assert.Assert(t, c.monitor != nil && c.rule != nil && c.policy != nil && c.dashboard.UID != "" && c.deployment != nil,
		"the component must bring a PodMonitor, a PrometheusRule, a NetworkPolicy oauth-proxy-metrics and a ConfigMap labelled grafana_dashboard")
	return c
}

func loaded(t *testing.T) component {
	t.Helper()
	return load(t, "monitoring")
}

// The monitor must find the pods, scrape a port that they have, and set the job label that rules and dashboard use.
func TestPodMonitorFindsThePods(t *testing.T) {
	c := loaded(t)
	pod := c.deployment.Spec.Template
	selector, err := metav1.LabelSelectorAsMap(&c.monitor.Spec.Selector)
	assert.NilError(t, err)
	for name, value := range selector {
		assert.Equal(t, pod.Labels[name], value, "podmonitor.yaml selects pods by %s", name)
	}
	assert.Equal(t, pod.Labels[c.monitor.Spec.JobLabel], job, "rules and dashboard ask for this job; podmonitor.yaml takes it from the label %q", c.monitor.Spec.JobLabel)
	port := pod.Spec.Containers[0].Ports[0]
	endpoints := c.monitor.Spec.PodMetricsEndpoints
	assert.Assert(t, len(endpoints) == 1 && endpoints[0].Port != nil && *endpoints[0].Port == port.Name && endpoints[0].Path == "/metrics",
		"podmonitor.yaml must scrape the container's port %q at /metrics", port.Name)
	// For scrapers that find pods by annotations.
	for name, want := range map[string]string{"scrape": "true", "port": fmt.Sprint(port.ContainerPort), "path": "/metrics"} {
		assert.Equal(t, pod.Annotations["prometheus.io/"+name], want)
	}
}

// The policy opens only the one port, to one kind of pod in one namespace.
func TestNetworkPolicyLetsOnlyPrometheusIn(t *testing.T) {
	c := loaded(t)
	assert.DeepEqual(t, c.policy.Spec.PodSelector, *c.deployment.Spec.Selector)
	assert.DeepEqual(t, c.policy.Spec.PolicyTypes, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress})
	assert.Equal(t, len(c.policy.Spec.Ingress), 1)
	rule := c.policy.Spec.Ingress[0]
	assert.Equal(t, len(rule.From), 1)
	assert.Assert(t, rule.From[0].NamespaceSelector != nil && rule.From[0].PodSelector != nil, "two elements, or one selector alone, would let far more in")
	assert.Assert(t, len(rule.From[0].NamespaceSelector.MatchLabels) > 0 && len(rule.From[0].PodSelector.MatchLabels) > 0, "an empty selector selects everything")
	assert.Equal(t, len(rule.Ports), 1)
	assert.Equal(t, int32(rule.Ports[0].Port.IntValue()), c.deployment.Spec.Template.Spec.Containers[0].Ports[0].ContainerPort)
}

// The example for kube-prometheus-stack adds the label that its Prometheus selects, and opens the policy to its namespace.
func TestKubePrometheusStackFindsThem(t *testing.T) {
	c := load(t, "monitoring", "monitoring/kube-prometheus-stack")
	assert.Equal(t, c.monitor.Labels["release"], "kube-prometheus-stack")
	assert.Equal(t, c.rule.Labels["release"], "kube-prometheus-stack")
	assert.DeepEqual(t, c.policy.Spec, loaded(t).policy.Spec) // `monitoring` is the namespace in both
	assert.Equal(t, c.deployment.Labels["release"], "")
}
