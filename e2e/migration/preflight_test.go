package migration

import "testing"

func TestPreflight(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run("preflight").says(t, 0,
		"ok    the device with the name answers: "+bare+" ("+oldID+", "+oldIP+", tag:proxy)",
		"ok    the old pod is ready: "+bare+"-5d8f-x2b4c, 0 restarts",
		"ok    no Argo CD Application would delete the old objects",
		"ok    Cilium leaves alone",
		"ok    the new path works up to the API and back: "+bare+"-1 ("+newID,
		"note  look into the tailnet policy", "nothing stands in the way")
	w.cluster.gone("deployment/oauth-proxy", "service/oauth-proxy", "configmap/oauth-proxy-abc")
	w.cluster.ids = nil
	w.devices = append(w.devices[:1], w.devices[2:]...)
	w.run("preflight").says(t, 0, "note  service/oauth-proxy is not there yet", "nothing stands in the way")
	w.run("swap").says(t, 1, "the operator has no device for service/oauth-proxy")
	w.untouched()
}

func tracked(w *world, name, options string) {
	w.cluster.annotate(name, "argocd.argoproj.io/tracking-id", "x:apps/Deployment:y/z")
	w.cluster.annotate(name, "argocd.argoproj.io/sync-options", options)
}

// swap refuses whatever preflight finds. Each case runs both.
func TestFindings(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*world)
		says   string
		notes  bool // it does not prevent a swap
	}{
		"the parking name is taken": {change: func(w *world) { w.rename("nLAPTOPCNTRL", bare+"-old") },
			says: "FAIL  anthropic-oauth-proxy-old (nLAPTOPCNTRL"},
		"the device with the name is dead": {change: func(w *world) { w.oldServer.dies() },
			says: "FAIL  the device with the name, " + bare + " (" + oldID},
		"the new proxy has the name already": {change: func(w *world) { w.oldServer.does(newProxy) },
			says: "leads to the new proxy, but is not the operator's"},
		"the name leads elsewhere here": {change: func(w *world) { w.stale = newIP },
			says: "FAIL  " + bare + suffix + " leads to " + newIP + " here, not to " + oldIP},
		"no old Deployment":        {change: func(w *world) { w.cluster.gone("deployment/" + bare) }, says: "should have exactly one pod, and it must be ready. Is this the right cluster?"},
		"the old pod is not ready": {change: func(w *world) { w.cluster.notReady() }, says: "should have exactly one pod, and it must be ready"},
		"no old pod":               {change: func(w *world) { w.cluster.gone(oldPod) }, says: "should have exactly one pod, and it must be ready"},
		"two old pods": {change: func(w *world) { w.cluster.objects = append(w.cluster.objects, w.cluster.at(oldPod)) },
			says: "should have exactly one pod, and it must be ready"},
		"Argo CD tracks": {change: func(w *world) { tracked(w, "secret/tailscale-authkey", ""); tracked(w, "deployment/"+bare, "") },
			says: "annotate --overwrite deployment/" + bare + " secret/tailscale-authkey argocd.argoproj.io/sync-options=Prune=false,Delete=false"},
		"Argo CD tracks by label": {change: func(w *world) {
			w.cluster.at("namespace/"+bare, "metadata", "labels")["app.kubernetes.io/instance"] = "x"
		}, says: "annotate --overwrite namespace/" + bare},
		"Argo CD is told to keep half": {change: func(w *world) { tracked(w, "service/"+bare, "Prune=false") },
			says: "annotate --overwrite service/" + bare},
		"Argo CD is told to keep all": {change: func(w *world) { tracked(w, "service/"+bare, "Prune=false, Delete=false") },
			says: "ok    no Argo CD Application would delete the old objects", notes: true},
		"Argo CD tracks what is new": {change: func(w *world) { tracked(w, "service/oauth-proxy", "") },
			says: "ok    no Argo CD Application would delete the old objects", notes: true},
		"no new device": {change: func(w *world) { w.cluster.ids = nil }, says: "the operator has no device for"},
		"the new path is dead": {change: func(w *world) { w.newServer.dies() },
			says: "FAIL  the new path does not work, " + bare + "-1 (" + newID + ", " + newIP + ", tag:k8s): "},
		"the new Service selects old pods": {change: func(w *world) { w.newServer.does(oldProxy) }, says: "leads to the old proxy: whose pods does"},
		"the API is out of reach": {change: func(w *world) { w.newServer.does(healthyOnly(502, `{"error":{"message":"dial tcp: i/o timeout"}}`)) },
			says: `gets 502 Bad Gateway instead of the API's 401: {"error":{"message":"dial tcp: i/o timeout"}}`},
		"something else answers for the API": {change: func(w *world) { w.newServer.does(healthyOnly(401, "")) }, says: "FAIL  the new path does not work"},
		"Cilium may eat forwarded packets":   {change: func(w *world) { w.cluster.cilium = "true,false" }, says: "set socketLB.hostNamespaceOnly=true", notes: true},
		"Cilium beside kube-proxy":           {change: func(w *world) { w.cluster.cilium = "false," }, says: "ok    Cilium", notes: true},
		"no Cilium":                          {change: func(w *world) { w.cluster.cilium = "" }, says: "ok    Cilium", notes: true},
		"kubectl may not read Cilium's": {change: func(w *world) {
			w.cluster.fails["cilium-config"] = answer{Code: 1, Err: "Error from server (Forbidden)"}
		}, says: "FAIL  kubectl get configmap/cilium-config"},
		"the cluster is away": {change: func(w *world) {
			w.cluster.fails["get "] = answer{Code: 1, Err: "dial tcp: connection refused"}
		}, says: "dial tcp: connection refused"},
		"kubectl may not read the operator's": {change: func(w *world) {
			w.cluster.fails["--all-namespaces"] = answer{Code: 1, Err: "Error from server (Forbidden)"}
		}, says: "Error from server (Forbidden)"},
		"kubectl talks nonsense":    {change: func(w *world) { w.cluster.fails["get "] = answer{Out: "hello"} }, says: "read what kubectl prints"},
		"the token is wrong":        {change: func(w *world) { w.fail(&fault{call: "list", status: 401, body: `{"message":"API token invalid"}`}) }, says: "list devices: API token invalid (401)"},
		"Tailscale has a fault":     {change: func(w *world) { w.fail(&fault{call: "list", status: 503, body: "<html>"}) }, says: "the Tailscale API answers 503"},
		"the API hangs up":          {change: func(w *world) { w.fail(&fault{call: "list"}) }, says: "list devices:"},
		"the API is something else": {change: func(w *world) { w.fail(&fault{call: "list", status: 200, body: "<html>"}) }, says: "list devices:"},
		"the API redirects":         {change: func(w *world) { w.fail(&fault{call: "list", status: 302}) }, says: "answers 302"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			tc.change(w)
			if tc.notes {
				w.run("preflight").says(t, 0, tc.says)
			} else {
				w.run("preflight").says(t, 1, tc.says)
				w.run("swap").says(t, 1)
			}
			w.untouched()
		})
	}
}
