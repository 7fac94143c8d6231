package monitoring

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
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

// unavailable ends a test for want of a tool. At a desk that is a skip; in CI every tool must be there, so it is a failure.
func unavailable(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func promtool(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		unavailable(t, "promtool checks and tests the rules, and it is not on the PATH: install Debian's package prometheus, or nixpkgs' prometheus.cli")
	}
	return path
}

// component is what switching the component on adds, and what of the base it must agree with.
type component struct {
	monitor       *monitoringv1.PodMonitor
	rule          *monitoringv1.PrometheusRule
	networkPolicy *networkingv1.NetworkPolicy
	dashboard     *corev1.ConfigMap
	deployment    *appsv1.Deployment
	limits        limits
}

// limits are the numbers that rules and dashboard repeat because no metric carries them.
type limits struct {
	maxConnections, maxBodyBytes, maxBufferedBytes, memory int64
}

// load renders dir, a copy of k8s/ or the original, with the component switched on.
func load(t *testing.T, dir string) (component, error) {
	t.Helper()
	var c component
	k8s := filepath.Join(t.TempDir(), "k8s")
	assert.NilError(t, os.CopyFS(k8s, os.DirFS(dir)))
	kustomization, err := os.ReadFile(filepath.Join(k8s, "kustomization.yaml"))
	assert.NilError(t, err)
	if !strings.Contains(string(kustomization), "\ncomponents:") { // as monitoring/kustomization.yaml says how
		kustomization = append(kustomization, "\ncomponents:\n  - monitoring\n"...)
		assert.NilError(t, os.WriteFile(filepath.Join(k8s, "kustomization.yaml"), kustomization, 0o600))
	}
	objects, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), k8s)
	if err != nil {
		return c, fmt.Errorf("%w\nmend what Kustomize names", err)
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
			return c, fmt.Errorf("the %s %s: %w\ncorrect the spelling of the field, or the type of its value", object.GetKind(), object.GetName(), err)
		}
		if meta, ok := decoded.(metav1.Object); ok && object.GetKind() != "Namespace" && meta.GetNamespace() != namespace {
			return c, fmt.Errorf("the %s %s is in the namespace %q: write namespace: %s", object.GetKind(), object.GetName(), meta.GetNamespace(), namespace)
		}
		switch o := decoded.(type) {
		case *monitoringv1.PodMonitor:
			c.monitor = o
		case *monitoringv1.PrometheusRule:
			c.rule = o
		case *networkingv1.NetworkPolicy:
			if o.Name == "oauth-proxy-metrics" {
				c.networkPolicy = o
			}
		case *corev1.ConfigMap:
			if _, ok := o.Labels["grafana_dashboard"]; ok {
				c.dashboard = o
			} else if err := c.limits.readConfig(o.Data["config.toml"]); err != nil {
				return c, err
			}
		case *appsv1.Deployment:
			c.deployment = o
			c.limits.memory = o.Spec.Template.Spec.Containers[0].Resources.Limits.Memory().Value()
		}
	}
	if c.monitor == nil || c.rule == nil || c.networkPolicy == nil || c.dashboard == nil || c.deployment == nil {
		return c, fmt.Errorf("the component must bring a PodMonitor, a PrometheusRule, a NetworkPolicy oauth-proxy-metrics and a ConfigMap with the label grafana_dashboard")
	}
	return c, nil
}

func (l *limits) readConfig(text string) error {
	var file struct {
		Proxy struct {
			MaxConnections   int64 `toml:"max_connections"`
			MaxBodyBytes     int64 `toml:"max_body_bytes"`
			MaxBufferedBytes int64 `toml:"max_buffered_bytes"`
		} `toml:"proxy"`
	}
	if err := toml.Unmarshal([]byte(text), &file); err != nil {
		return fmt.Errorf("config.toml: %w", err)
	}
	l.maxConnections, l.maxBodyBytes, l.maxBufferedBytes = file.Proxy.MaxConnections, file.Proxy.MaxBodyBytes, file.Proxy.MaxBufferedBytes
	return nil
}

func loaded(t *testing.T) component {
	t.Helper()
	c, err := load(t, filepath.Join(repository, "k8s"))
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
			return fmt.Errorf("podmonitor.yaml selects %s=%s, and the pods have %q there: no pod would be scraped", name, value, pod.Labels[name])
		}
	}
	if got := pod.Labels[c.monitor.Spec.JobLabel]; got != job {
		return fmt.Errorf("podmonitor.yaml takes the job from the label %q, which is %q: rules and dashboard ask for job=%q", c.monitor.Spec.JobLabel, got, job)
	}
	endpoints := c.monitor.Spec.PodMetricsEndpoints
	if len(endpoints) != 1 || endpoints[0].Port == nil || endpoints[0].Path != "/metrics" {
		return fmt.Errorf("podmonitor.yaml must scrape one port, by name, at /metrics")
	}
	for _, port := range pod.Spec.Containers[0].Ports {
		if port.Name == *endpoints[0].Port {
			return nil
		}
	}
	return fmt.Errorf("podmonitor.yaml scrapes the port %q, which the container does not have", *endpoints[0].Port)
}

// The policy opens the one port to one kind of pod, and nothing else.
func TestNetworkPolicyLetsOnlyPrometheusIn(t *testing.T) {
	c := loaded(t)
	spec := c.networkPolicy.Spec
	assert.DeepEqual(t, spec.PodSelector, *c.deployment.Spec.Selector)
	assert.DeepEqual(t, spec.PolicyTypes, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress})
	assert.Equal(t, len(spec.Ingress), 1)
	rule := spec.Ingress[0]
	assert.Equal(t, len(rule.From), 1)
	assert.Assert(t, rule.From[0].NamespaceSelector != nil && rule.From[0].PodSelector != nil,
		"the peer needs both selectors in one element; as two elements, or with one alone, far more may come in")
	assert.Assert(t, len(rule.From[0].NamespaceSelector.MatchLabels) > 0 && len(rule.From[0].PodSelector.MatchLabels) > 0, "an empty selector selects everything")
	assert.Equal(t, len(rule.Ports), 1)
	assert.Equal(t, int32(rule.Ports[0].Port.IntValue()), c.deployment.Spec.Template.Spec.Containers[0].Ports[0].ContainerPort)
}

// Grafana's sidecar looks for exactly this label and value, and a file that ends in .json.
func TestDashboardIsFoundByTheSidecar(t *testing.T) {
	c := loaded(t)
	assert.Equal(t, c.dashboard.Labels["grafana_dashboard"], "1")
	source, err := fs.ReadFile(os.DirFS(repository), "k8s/monitoring/dashboard.json")
	assert.NilError(t, err)
	assert.DeepEqual(t, c.dashboard.Data, map[string]string{"oauth-proxy.json": string(source)})
}

// The scrape annotations of old, for what finds pods by them (Netdata, an annotation-driven Prometheus).
func TestPodsHaveTheScrapeAnnotations(t *testing.T) {
	pod := loaded(t).deployment.Spec.Template
	for name, want := range map[string]string{
		"prometheus.io/scrape": "true",
		"prometheus.io/port":   strconv.Itoa(int(pod.Spec.Containers[0].Ports[0].ContainerPort)),
		"prometheus.io/path":   "/metrics",
	} {
		assert.Check(t, pod.Annotations[name] == want, "k8s/deployment.yaml: the pod template needs the annotation %s: %q, and has %q", name, want, pod.Annotations[name])
	}
}
