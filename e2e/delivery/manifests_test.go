package delivery

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	podsecurity "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

const namespace = "anthropic-oauth-proxy"

// Every object decodes strictly, and there is exactly one of each kind. Otherwise load returns an error.
func TestObjectsDecodeStrictlyAndBelongTogether(t *testing.T) {
	m := rendered(t)
	assert.Equal(t, m.namespace.Name, namespace)
	for _, object := range []metav1.Object{m.account, m.config, m.service, m.networkPolicy, m.deployment} {
		assert.Equal(t, object.GetNamespace(), namespace, object.GetName())
	}

	podLabels := labels.Set(m.pod().Labels)
	assert.Assert(t, labels.SelectorFromSet(m.service.Spec.Selector).Matches(podLabels), "the Service does not select the pod")
	for _, selector := range []*metav1.LabelSelector{m.deployment.Spec.Selector, &m.networkPolicy.Spec.PodSelector} {
		parsed, err := metav1.LabelSelectorAsSelector(selector)
		assert.NilError(t, err)
		assert.Assert(t, parsed.Matches(podLabels), "%s does not select the pod", parsed)
	}
	assert.Equal(t, m.pod().Spec.ServiceAccountName, m.account.Name)
	assert.Equal(t, m.pod().Spec.Volumes[0].ConfigMap.Name, m.config.Name)
}

// The migration runs the old and the new pod side by side. The old objects are all called anthropic-oauth-proxy, and the old pod
// has the label app: anthropic-oauth-proxy. With the same name, Kubernetes would replace the old pod. With the same label, a Service
// would select both.
func TestNewPodStandsBesideTheOldOne(t *testing.T) {
	m := rendered(t)
	for _, object := range []metav1.Object{m.account, m.config, m.service, m.networkPolicy, m.deployment} {
		assert.Assert(t, object.GetName() != "anthropic-oauth-proxy", "%T has the name of an old object", object)
	}
	old := labels.Set{"app": "anthropic-oauth-proxy"}
	for _, selector := range []map[string]string{m.service.Spec.Selector, m.deployment.Spec.Selector.MatchLabels, m.networkPolicy.Spec.PodSelector.MatchLabels} {
		assert.Assert(t, len(selector) > 0)
		assert.Assert(t, !labels.SelectorFromSet(selector).Matches(old), "%v selects the old pod", selector)
		// Argo CD sets this label on what it manages, so a selector must not use it.
		assert.Assert(t, selector["app.kubernetes.io/instance"] == "")
	}
	assert.Assert(t, !labels.SelectorFromSet(old).Matches(labels.Set(m.pod().Labels)), "the old objects select the new pod")
}

// The operator forwards only the Service's ports, so the Service needs 8080 for Aperture's address to work.
func TestServiceIsTheTailnetDevice(t *testing.T) {
	m := rendered(t)
	assert.DeepEqual(t, m.service.Annotations, map[string]string{
		"tailscale.com/expose":   "true",
		"tailscale.com/hostname": "anthropic-oauth-proxy",
	})
	assert.Equal(t, m.service.Spec.Type, corev1.ServiceTypeClusterIP)
	assert.Equal(t, m.service.Spec.ClusterIP, "", "a headless Service is not exposed")
	var ports []int32
	names := map[string]bool{}
	for _, port := range m.service.Spec.Ports {
		ports = append(ports, port.Port)
		names[port.Name] = true
		assert.Equal(t, port.Protocol, corev1.ProtocolTCP)
		assert.Equal(t, port.TargetPort.String(), m.container().Ports[0].Name)
	}
	slices.Sort(ports)
	assert.DeepEqual(t, ports, []int32{80, 8080}) // without 8080 every client must be reconfigured
	assert.Equal(t, len(names), len(ports), "port names must differ")
	assert.Equal(t, m.container().Ports[0].ContainerPort, int32(8080))
}

func TestPodNeedsNoSecrets(t *testing.T) {
	m := rendered(t)
	pod := m.pod().Spec
	assert.Equal(t, len(pod.ImagePullSecrets)+len(m.account.ImagePullSecrets)+len(m.account.Secrets), 0)
	assert.Equal(t, len(m.container().EnvFrom), 0)
	for _, variable := range m.container().Env {
		assert.Assert(t, variable.ValueFrom == nil, "%s comes from elsewhere", variable.Name)
	}
	assert.Equal(t, len(pod.Volumes), 1, "the only volume is the configuration")
	assert.Assert(t, pod.Volumes[0].ConfigMap != nil)
	assert.DeepEqual(t, slices.Sorted(maps.Keys(m.config.Data)), []string{"config.toml"})
	assert.Equal(t, *m.account.AutomountServiceAccountToken, false)
	assert.Equal(t, *pod.AutomountServiceAccountToken, false)
}

func TestPodIsHardened(t *testing.T) {
	m := rendered(t)
	pod, container := m.pod().Spec, m.container()
	assert.Equal(t, *pod.SecurityContext.RunAsNonRoot, true)
	assert.Equal(t, *pod.SecurityContext.RunAsUser, int64(nonroot))
	assert.Equal(t, *pod.SecurityContext.RunAsGroup, int64(nonroot))
	assert.Equal(t, pod.SecurityContext.SeccompProfile.Type, corev1.SeccompProfileTypeRuntimeDefault)
	assert.Equal(t, *container.SecurityContext.AllowPrivilegeEscalation, false)
	assert.Equal(t, *container.SecurityContext.ReadOnlyRootFilesystem, true)
	assert.DeepEqual(t, container.SecurityContext.Capabilities, &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}})
	assert.Equal(t, *pod.EnableServiceLinks, false)
	assert.Equal(t, pod.DNSConfig.Options[0].Name+":"+*pod.DNSConfig.Options[0].Value, "ndots:1")
	assert.Assert(t, container.VolumeMounts[0].ReadOnly)
}

func TestPodPassesTheNamespacesOwnPolicy(t *testing.T) {
	assert.NilError(t, checkPodSecurity(rendered(t)))
}

// checkPodSecurity runs the admission plugin's own code at the level that the namespace enforces.
func checkPodSecurity(m manifests) error {
	latest := podsecurity.LevelVersion{Level: podsecurity.LevelPrivileged, Version: podsecurity.LatestVersion()}
	policies, problems := podsecurity.PolicyToEvaluate(m.namespace.Labels, podsecurity.Policy{Enforce: latest, Audit: latest, Warn: latest})
	if len(problems) > 0 {
		return problems.ToAggregate()
	}
	if policies.Enforce.Level != podsecurity.LevelRestricted || policies.Warn.Level != podsecurity.LevelRestricted {
		return errors.New("the namespace must carry enforce: restricted and warn: restricted: see k8s/namespace.yaml")
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return err
	}
	result := policy.AggregateCheckResults(evaluator.EvaluatePod(policies.Enforce, &m.pod().ObjectMeta, &m.pod().Spec))
	if !result.Allowed {
		return fmt.Errorf("the namespace would refuse the pod: %s\ncorrect the securityContext in k8s/deployment.yaml", result.ForbiddenDetail())
	}
	return nil
}

// A deploy does not interrupt service: the new pod is ready before the old one is stopped.
func TestRolloutNeverLeavesTheServiceEmpty(t *testing.T) {
	m := rendered(t)
	assert.Equal(t, *m.deployment.Spec.Replicas, int32(1))
	rolling := m.deployment.Spec.Strategy.RollingUpdate
	assert.Equal(t, rolling.MaxSurge.IntValue(), 1)
	assert.Equal(t, rolling.MaxUnavailable.IntValue(), 0)
	for _, probe := range []*corev1.Probe{m.container().ReadinessProbe, m.container().LivenessProbe} {
		assert.Equal(t, probe.HTTPGet.Path, "/health")
		assert.Equal(t, probe.HTTPGet.Port.String(), m.container().Ports[0].Name)
		assert.Assert(t, probe.TimeoutSeconds <= probe.PeriodSeconds, "probes would overlap")
	}
	// A restart cuts every stream. A node that is slow for half a minute must not cause one.
	liveness := m.container().LivenessProbe
	assert.Assert(t, liveness.PeriodSeconds*liveness.FailureThreshold >= 60)
	// No mistake in the branch may delete the namespace, because the tailnet device would go with it.
	assert.Equal(t, m.namespace.Annotations["argocd.argoproj.io/sync-options"], "Prune=false,Delete=false")
	// A changed configuration becomes a new ConfigMap, which changes the pod. The old one stays until the new pod is healthy.
	assert.Assert(t, strings.HasPrefix(m.config.Name, "oauth-proxy-") && *m.config.Immutable)
	assert.Equal(t, m.config.Annotations["argocd.argoproj.io/sync-options"], "PruneLast=true")
}
