package monitoring

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"gotest.tools/v3/assert"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// repository is the tree under test: these tests run in e2e/monitoring.
const repository = "../.."

const namespace = "anthropic-oauth-proxy"

// component is what switching the component on adds, and the Deployment that it must fit.
type component struct {
	monitor    *monitoringv1.PodMonitor
	rule       *monitoringv1.PrometheusRule
	policy     *networkingv1.NetworkPolicy
	dashboard  dashboard
	deployment *appsv1.Deployment
}

// load renders a copy of k8s/ with the components switched on, as monitoring/kustomization.yaml says how.
func load(t *testing.T, k8s string, components ...string) (component, error) {
	t.Helper()
	var c component
	dir := filepath.Join(t.TempDir(), "k8s")
	assert.NilError(t, os.CopyFS(dir, os.DirFS(k8s)))
	file, err := os.OpenFile(filepath.Join(dir, "kustomization.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	assert.NilError(t, err)
	_, err = fmt.Fprintf(file, "\ncomponents: [%s]\n", strings.Join(components, ", "))
	assert.NilError(t, errors.Join(err, file.Close()))
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return c, err
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, networkingv1.AddToScheme, monitoringv1.AddToScheme} {
		assert.NilError(t, add(scheme))
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	for _, object := range objects.Resources() {
		document, err := object.AsYAML()
		if err != nil {
			return c, fmt.Errorf("the %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		decoded, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			return c, fmt.Errorf("the %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		if object.GetKind() != "Namespace" && object.GetNamespace() != namespace {
			return c, fmt.Errorf("the %s %s is in the namespace %q, not %s", object.GetKind(), object.GetName(), object.GetNamespace(), namespace)
		}
		switch o := decoded.(type) {
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
				if c.dashboard, err = decodeDashboard(o.Data["oauth-proxy.json"]); err != nil {
					return c, err
				}
			}
		case *appsv1.Deployment:
			c.deployment = o
		}
	}
	if c.monitor == nil || c.rule == nil || c.policy == nil || c.dashboard.UID == "" || c.deployment == nil {
		return c, errors.New("the component must bring a PodMonitor, a PrometheusRule, a NetworkPolicy oauth-proxy-metrics and a ConfigMap labelled grafana_dashboard")
	}
	return c, nil
}

func loaded(t *testing.T) component {
	t.Helper()
	c, err := load(t, filepath.Join(repository, "k8s"), "monitoring")
	assert.NilError(t, err)
	return c
}

// The monitor must find the pods, at a port that they have, and give them the job that rules and dashboard ask for.
func TestPodMonitorFindsThePods(t *testing.T) {
	assert.NilError(t, checkMonitor(loaded(t)))
}

func checkMonitor(c component) error {
	pod := c.deployment.Spec.Template
	selector, err := metav1.LabelSelectorAsMap(&c.monitor.Spec.Selector)
	if err != nil {
		return err
	}
	for name, value := range selector {
		if pod.Labels[name] != value {
			return fmt.Errorf("podmonitor.yaml selects %s=%s, and the pods have %q there", name, value, pod.Labels[name])
		}
	}
	if got := pod.Labels[c.monitor.Spec.JobLabel]; got != job {
		return fmt.Errorf("podmonitor.yaml takes the job from the label %q, which is %q: rules and dashboard ask for job=%q", c.monitor.Spec.JobLabel, got, job)
	}
	port := pod.Spec.Containers[0].Ports[0]
	endpoints := c.monitor.Spec.PodMetricsEndpoints
	if len(endpoints) != 1 || endpoints[0].Port == nil || *endpoints[0].Port != port.Name || endpoints[0].Path != "/metrics" {
		return fmt.Errorf("podmonitor.yaml must scrape the container's port %q at /metrics", port.Name)
	}
	// For scrapers that find pods by the annotations of old.
	if got := pod.Annotations; got["prometheus.io/scrape"] != "true" || got["prometheus.io/port"] != fmt.Sprint(port.ContainerPort) || got["prometheus.io/path"] != "/metrics" {
		return fmt.Errorf("deployment.yaml: the scrape annotations must name port %d and /metrics, not %v", port.ContainerPort, got)
	}
	return nil
}

// The policy opens the one port to one kind of pod in one namespace, and nothing else.
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

// The example for kube-prometheus-stack adds the label that its Prometheus selects by, and opens the policy to its namespace.
func TestKubePrometheusStackFindsThem(t *testing.T) {
	c, err := load(t, filepath.Join(repository, "k8s"), "monitoring", "monitoring/kube-prometheus-stack")
	assert.NilError(t, err)
	assert.Equal(t, c.monitor.Labels["release"], "kube-prometheus-stack")
	assert.Equal(t, c.rule.Labels["release"], "kube-prometheus-stack")
	assert.DeepEqual(t, c.policy.Spec, loaded(t).policy.Spec) // `monitoring` is the namespace in both
	assert.Equal(t, c.deployment.Labels["release"], "")
}
