package delivery

import (
	"net/netip"
	"testing"

	"gotest.tools/v3/assert"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// A party is the other end of a connection: a pod, known by labels, or an address outside the cluster.
type party struct {
	namespace string
	labels    labels.Set
	address   string
}

// operatorPod is the pod that the Tailscale Operator creates for the Service.
func operatorPod(m manifests, namespace string) party {
	return party{namespace: namespace, labels: labels.Set{
		"tailscale.com/managed":              "true",
		"tailscale.com/parent-resource":      m.service.Name,
		"tailscale.com/parent-resource-ns":   m.service.Namespace,
		"tailscale.com/parent-resource-type": "svc",
		"app":                                "a-label-of-its-own",
	}}
}

func TestOnlyTheOperatorReachesThePod(t *testing.T) {
	m := rendered(t)
	assert.DeepEqual(t, m.networkPolicy.Spec.PolicyTypes, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress})

	enters := func(from party, port int32) bool {
		for _, rule := range m.networkPolicy.Spec.Ingress {
			if allows(t, rule.From, rule.Ports, from, corev1.ProtocolTCP, port) {
				return true
			}
		}
		return false
	}
	for _, namespace := range []string{"tailscale-operator", "tailscale"} {
		assert.Assert(t, enters(operatorPod(m, namespace), 8080))
		assert.Assert(t, !enters(operatorPod(m, namespace), 9090), "8080 is the only port")
		for label := range operatorPod(m, namespace).labels {
			if label == "app" {
				continue
			}
			without := operatorPod(m, namespace)
			delete(without.labels, label)
			assert.Assert(t, !enters(without, 8080), "a pod without %s gets in", label)
		}
	}
	another := operatorPod(m, "tailscale-operator")
	another.labels["tailscale.com/parent-resource"] = "another-service"
	assert.Assert(t, !enters(another, 8080), "the operator's pod for another Service gets in")
	assert.Assert(t, !enters(operatorPod(m, "default"), 8080), "a pod that only carries the labels gets in")
	assert.Assert(t, !enters(party{namespace: namespace, labels: m.pod().Labels}, 8080), "a neighbour gets in")
	assert.Assert(t, !enters(party{address: "192.168.1.10"}, 8080), "an address outside the cluster gets in")
}

func TestThePodReachesOnlyNamesAndPublicHTTPS(t *testing.T) {
	m := rendered(t)
	leaves := func(to party, protocol corev1.Protocol, port int32) bool {
		for _, rule := range m.networkPolicy.Spec.Egress {
			if allows(t, rule.To, rule.Ports, to, protocol, port) {
				return true
			}
		}
		return false
	}
	dns := party{namespace: "kube-system", labels: labels.Set{"k8s-app": "kube-dns"}}
	assert.Assert(t, leaves(dns, corev1.ProtocolUDP, 53))
	assert.Assert(t, leaves(dns, corev1.ProtocolTCP, 53))
	assert.Assert(t, !leaves(dns, corev1.ProtocolTCP, 443))
	assert.Assert(t, !leaves(party{namespace: "default"}, corev1.ProtocolUDP, 53))
	assert.Assert(t, !leaves(party{address: "8.8.8.8"}, corev1.ProtocolUDP, 53))

	for _, public := range []string{"160.79.104.10", "1.1.1.1", "172.32.0.1", "100.128.0.1", "2607:6bc0::10"} {
		assert.Assert(t, leaves(party{address: public}, corev1.ProtocolTCP, 443), "%s is public", public)
		assert.Assert(t, !leaves(party{address: public}, corev1.ProtocolTCP, 80), "%s: only HTTPS", public)
		assert.Assert(t, !leaves(party{address: public}, corev1.ProtocolUDP, 443), "%s: only TCP", public)
	}
	for _, private := range []string{
		"10.96.0.1", "172.16.0.1", "172.31.255.254", "192.168.1.1", "100.64.0.1", "100.127.255.254", "169.254.169.254",
		"fd7a:115c:a1e0::1", "fc00::1", "fe80::1",
	} {
		assert.Assert(t, !leaves(party{address: private}, corev1.ProtocolTCP, 443), "%s is private", private)
	}
}

// allows evaluates one rule as NetworkPolicy defines it, for the fields that our rules use.
func allows(t *testing.T, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, other party, protocol corev1.Protocol, port int32) bool {
	t.Helper()
	assert.Assert(t, len(peers) > 0 && len(ports) > 0, "an empty list of peers or ports means all of them")
	matchesPort := false
	for _, candidate := range ports {
		assert.Assert(t, candidate.EndPort == nil)
		matchesPort = matchesPort || (*candidate.Protocol == protocol && candidate.Port.IntVal == port)
	}
	for _, peer := range peers {
		if matchesPort && peerIs(t, peer, other) {
			return true
		}
	}
	return false
}

func peerIs(t *testing.T, peer networkingv1.NetworkPolicyPeer, other party) bool {
	t.Helper()
	if peer.IPBlock != nil {
		if other.address == "" {
			return false
		}
		address := netip.MustParseAddr(other.address)
		for _, except := range peer.IPBlock.Except {
			if netip.MustParsePrefix(except).Contains(address) {
				return false
			}
		}
		return netip.MustParsePrefix(peer.IPBlock.CIDR).Contains(address)
	}
	matches := func(selector *metav1.LabelSelector, set labels.Set) bool {
		parsed, err := metav1.LabelSelectorAsSelector(selector)
		assert.NilError(t, err)
		return parsed.Matches(set)
	}
	if other.address != "" {
		return false
	}
	// Without a namespaceSelector the peer is in the policy's own namespace.
	inNamespace := other.namespace == namespace
	if peer.NamespaceSelector != nil {
		inNamespace = matches(peer.NamespaceSelector, labels.Set{"kubernetes.io/metadata.name": other.namespace})
	}
	return inNamespace && (peer.PodSelector == nil || matches(peer.PodSelector, other.labels))
}
