package migration

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

func TestPreflightBeforeTheManifestsAreApplied(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.cluster.gone("deployment/oauth-proxy", "service/oauth-proxy")
	w.cluster.ids = nil
	w.devices = append(w.devices[:1], w.devices[2:]...)
	w.run("preflight").says(t, 0,
		"talos-prod-01",
		"ok    one device carries the name and answers: "+bare+" ("+oldID+", "+oldIP+", tag:proxy, online)",
		"ok    the old pod is ready: old-1, 0 restarts",
		"ok    no Argo CD Application would delete the old objects",
		"not applied",
		"bpf-lb-sock-hostns-only is true",
		"may reach tag:proxy now must also be allowed to reach tag:k8s",
		"Nothing stands in the way of applying the new manifests")
	w.untouched()
}

func TestPreflightBeforeTheSwap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("preflight", "--dry-run").says(t, 0, "ok    the new path works up to the API and back: "+bare+"-1 ("+newID, "Nothing stands in the way of swap.")
	w.untouched()
}

// untouched checks that nothing was written anywhere, and that the token went no further than the API.
func (w *world) untouched() {
	w.t.Helper()
	assert.DeepEqual(w.t, w.writes(), []string(nil))
	assert.DeepEqual(w.t, w.cluster.changed(), []string(nil))
	w.secret()
}

// secret checks that no child process was given the token.
func (w *world) secret() {
	w.t.Helper()
	w.cluster.mu.Lock()
	defer w.cluster.mu.Unlock()
	assert.Assert(w.t, len(w.cluster.calls) > 0, "kubectl was never called: the check would prove nothing")
	for _, c := range w.cluster.calls {
		assert.Assert(w.t, !strings.Contains(strings.Join(append(c.Args, c.Env...), "\n"), "SECRET1"), "kubectl was given the token: %q", c)
	}
}

func tracked(w *world, name string) {
	w.cluster.annotate(name, "argocd.argoproj.io/tracking-id", "x:apps/Deployment:y/z")
}

// What preflight finds, swap refuses to go over: each case is run through both.
func TestFindings(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*world)
		says   string
		code   int // of preflight
		only   string
	}{
		"two devices with the name": {func(w *world) { w.edit("nLAPTOPCNTRL", func(d *dev) { d.Name = bare + ".tail1234.ts.net" }) },
			"two devices are called anthropic-oauth-proxy: anthropic-oauth-proxy (" + oldID, 1, ""},
		"the operator has two": {func(w *world) { w.cluster.ids = append(w.cluster.ids, "nLAPTOPCNTRL") },
			"the operator has two devices for Service oauth-proxy", 1, ""},
		"no device with the name": {func(w *world) { w.edit(oldID, func(d *dev) { d.Name = "elsewhere" + suffix }) },
			"FAIL  NOBODY carries the name", 1, "preflight"},
		"a dead record asks for the name": {func(w *world) {
			w.edit("nLAPTOPCNTRL", func(d *dev) { d.Hostname, d.Name, d.ConnectedToControl = bare, bare+"-7"+suffix, false })
		},
			"note  anthropic-oauth-proxy-7 (nLAPTOPCNTRL, 127.0.0.9, , offline, last seen ) also asks for the name", 0, "preflight"},
		"the parking name is taken": {func(w *world) { w.edit("nLAPTOPCNTRL", func(d *dev) { d.Name = bare + "-old" + suffix }) },
			"FAIL  anthropic-oauth-proxy-old (nLAPTOPCNTRL", 1, ""},
		"the device with the name is dead": {func(w *world) { w.oldServer.dies() },
			"FAIL  the device with the name, " + bare + " (" + oldID, 1, ""},
		"the new proxy has the name already": {func(w *world) { w.oldServer.does(newProxy) },
			"is served by the new proxy already", 1, ""},
		"the name leads elsewhere here": {func(w *world) { w.stale = "127.0.0.9" },
			`FAIL  anthropic-oauth-proxy.tail1234.ts.net leads to "127.0.0.9" here, not to ` + oldIP, 1, ""},
		"no old Deployment": {func(w *world) { w.cluster.gone("deployment/" + bare) },
			"FAIL  there is no deployment/anthropic-oauth-proxy in namespace anthropic-oauth-proxy: is this the right cluster?", 1, ""},
		"the old pod is not ready": {func(w *world) {
			w.cluster.at("pod/old-1", "status")["conditions"] = []obj{{"type": "Ready", "status": "False"}}
		},
			"FAIL  deployment/anthropic-oauth-proxy should have one pod, and that ready", 1, ""},
		"no old pod":   {func(w *world) { w.cluster.gone("pod/old-1") }, "should have one pod", 1, ""},
		"two old pods": {func(w *world) { w.cluster.objects["pod/old-2"] = w.cluster.objects["pod/old-1"] }, "should have one pod", 1, ""},
		"Argo CD tracks": {func(w *world) { tracked(w, "secret/tailscale-authkey"); tracked(w, "deployment/"+bare) },
			"annotate --overwrite secret/tailscale-authkey deployment/" + bare + " argocd.argoproj.io/sync-options=Prune=false,Delete=false", 1, ""},
		"Argo CD tracks by label": {func(w *world) {
			w.cluster.at("namespace/"+bare, "metadata")["labels"] = obj{"app.kubernetes.io/instance": "x"}
		},
			"annotate --overwrite namespace/" + bare, 1, ""},
		"Argo CD is told to keep half": {func(w *world) {
			tracked(w, "service/"+bare)
			w.cluster.annotate("service/"+bare, "argocd.argoproj.io/sync-options", "Prune=false")
		},
			"annotate --overwrite service/" + bare, 1, ""},
		"Argo CD is told to keep all": {func(w *world) {
			tracked(w, "service/"+bare)
			w.cluster.annotate("service/"+bare, "argocd.argoproj.io/sync-options", "Prune=false, Delete=false")
		},
			"ok    no Argo CD Application would delete the old objects", 0, "preflight"},
		"port 8080 is missing": {func(w *world) { w.cluster.at("service/oauth-proxy", "spec")["ports"] = []obj{{"port": 80}} },
			"FAIL  service/oauth-proxy lacks port 8080", 1, ""},
		"port 80 is missing": {func(w *world) { w.cluster.at("service/oauth-proxy", "spec")["ports"] = []obj{{"port": 8080}} },
			"FAIL  service/oauth-proxy lacks port 80", 1, ""},
		"not exposed": {func(w *world) {
			delete(w.cluster.at("service/oauth-proxy", "metadata", "annotations"), "tailscale.com/expose")
		}, "the operator takes no notice", 1, ""},
		"another name":    {func(w *world) { w.cluster.annotate("service/oauth-proxy", "tailscale.com/hostname", "x") }, "the operator takes no notice", 1, ""},
		"headless":        {func(w *world) { w.cluster.at("service/oauth-proxy", "spec")["clusterIP"] = "None" }, "FAIL  service/oauth-proxy has no ClusterIP", 1, ""},
		"operator waits":  {func(w *world) { delete(w.cluster.at("service/oauth-proxy"), "status") }, "FAIL  the operator has not set TailscaleProxyReady", 1, ""},
		"not rolled out":  {func(w *world) { w.cluster.at("deployment/oauth-proxy", "status")["readyReplicas"] = 0 }, "rollout status deployment/oauth-proxy", 1, ""},
		"half rolled out": {func(w *world) { w.cluster.at("deployment/oauth-proxy", "status")["updatedReplicas"] = 0 }, "rollout status deployment/oauth-proxy", 1, ""},
		"no new device":   {func(w *world) { w.cluster.ids = nil }, "the operator has no device for", 1, ""},
		"the new path is dead": {func(w *world) { w.newServer.dies() },
			"FAIL  the operator's device " + bare + "-1 (" + newID + ", " + newIP + ", tag:k8s, online) does not answer on port", 1, ""},
		"the new Service selects old pods": {func(w *world) { w.newServer.does(w.oldProxy) }, "answers, but not as the new proxy does", 1, ""},
		"the API is out of reach": {func(w *world) { w.newServer.does(noUpstream) },
			"the API behind it does not: 502 dial tcp: i/o timeout: kubectl -n anthropic-oauth-proxy logs deployment/oauth-proxy says more", 1, ""},
		"something else answers for the API": {func(w *world) { w.newServer.does(stranger) }, "was answered with 418, expected 401 through the proxy", 1, ""},
		"Cilium eats forwarded packets": {func(w *world) { cilium(w, "false", "false"); w.newServer.dies() },
			"FAIL  Cilium replaces kube-proxy and bpf-lb-sock-hostns-only is not true", 1, ""},
		"Cilium's setting is absent":    {func(w *world) { cilium(w, "", ""); w.newServer.dies() }, "Set socketLB.hostNamespaceOnly=true", 1, ""},
		"Cilium with Envoy":             {func(w *world) { cilium(w, "false", "true"); w.newServer.dies() }, "only the new path answering is proof", 1, ""},
		"Cilium is wrong, yet it works": {func(w *world) { cilium(w, "false", "false") }, "note  Cilium's bpf-lb-sock-hostns-only is not true; the new path works all the same", 0, "preflight"},
		"Cilium beside kube-proxy": {func(w *world) {
			cilium(w, "false", "false")
			w.cluster.at("configmap/cilium-config", "data")["kube-proxy-replacement"] = "false"
		}, "ok    Cilium does not replace kube-proxy", 0, "preflight"},
		"no Cilium": {func(w *world) { w.cluster.gone("configmap/cilium-config") }, "note  no Cilium here", 0, "preflight"},
		"kubectl may not read Cilium's": {func(w *world) {
			w.cluster.fails["cilium-config"] = answer{Code: 1, Err: "Error from server (Forbidden)"}
		}, "FAIL  kubectl get configmap cilium-config", 1, ""},
		"kubectl may not read Argo's": {func(w *world) {
			w.cluster.fails["get service/"+bare] = answer{Code: 1, Err: "Error from server (Forbidden)"}
		}, "FAIL  kubectl get service/" + bare, 1, ""},
		"kubectl may not list Services": {func(w *world) {
			w.cluster.fails["get services"] = answer{Code: 1, Err: "Error from server (Forbidden)"}
		}, "FAIL  kubectl get services", 1, ""},
		"the cluster is away":       {func(w *world) { w.cluster.fails["get "] = answer{Code: 1, Err: "dial tcp: connection refused"} }, "kubectl get secrets --all-namespaces", 1, ""},
		"kubectl talks nonsense":    {func(w *world) { w.cluster.fails["get deployment"] = answer{Out: "hello"} }, "kubectl get deployment " + bare + " --namespace=" + bare, 1, ""},
		"the token is wrong":        {func(w *world) { w.fail(&fault{call: "list", status: 401, body: `{"message":"API token invalid"}`}) }, `list devices: the Tailscale API answers 401 "API token invalid": TS_API_KEY is wrong, expired or revoked`, 1, ""},
		"the token may not":         {func(w *world) { w.fail(&fault{call: "list", status: 403, body: `{"message":"no"}`}) }, "devices:core", 1, ""},
		"no such tailnet":           {func(w *world) { w.fail(&fault{call: "list", status: 404}) }, "is --tailnet - right?", 1, ""},
		"too many calls":            {func(w *world) { w.fail(&fault{call: "list", status: 429}) }, "too many calls", 1, ""},
		"Tailscale has a fault":     {func(w *world) { w.fail(&fault{call: "list", status: 503, body: "<html>"}) }, "answers 503: a fault on Tailscale's side", 1, ""},
		"the API hangs up":          {func(w *world) { w.fail(&fault{call: "list"}) }, "list devices:", 1, ""},
		"the API is something else": {func(w *world) { w.fail(&fault{call: "list", status: 200, body: "<html>"}) }, "is --api right?", 1, ""},
		"the API redirects": {func(w *world) {
			w.fail(&fault{call: "list", status: 302, header: map[string][]string{"Location": {w.api.URL + "/elsewhere"}}})
		}, "answers 302", 1, ""},
		"the API repeats the token": {func(w *world) {
			w.fail(&fault{call: "list", status: 401, body: `{"message":"bad token ` + token + `"}`})
		}, `"bad token …"`, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tc.change(w)
			w.run("preflight").says(t, tc.code, tc.says)
			if tc.only == "" {
				w.run("swap").says(t, 1, tc.says)
			}
			w.untouched()
		})
	}
}
