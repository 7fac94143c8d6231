package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// A report is a list of findings, printed as they come.
type report struct {
	m     *migration
	fails int
}

func (r *report) ok(format string, a ...any)   { r.m.say("ok    "+format, a...) }
func (r *report) note(format string, a ...any) { r.m.say("note  "+format, a...) }
func (r *report) fail(format string, a ...any) { r.fails++; r.m.say("FAIL  "+format, a...) }

// doubt is a failure, unless --force says that the old pod no longer matters.
func (r *report) doubt(format string, a ...any) {
	if r.m.force {
		r.note(format, a...)
		return
	}
	r.fail(format, a...)
}

func (m *migration) preflight(ctx context.Context) error {
	w, err := m.look(ctx)
	if err != nil {
		return err
	}
	good := m.examine(ctx, w)
	m.say("")
	switch {
	case !good:
		return refuse("set the lines marked FAIL right, then run preflight again")
	case w.stage() != before:
		m.say("%s. Nothing is left to prepare; see status.", w.stage())
	case w.now == nil:
		m.say("Nothing stands in the way of applying the new manifests. Run preflight again once they are there.")
	default:
		m.say("Nothing stands in the way of swap.")
	}
	return nil
}

// examine prints every finding and says whether a swap may go ahead.
func (m *migration) examine(ctx context.Context, w *world) bool {
	r := &report{m: m}
	if out, err := m.kube.run(ctx, "config", "current-context"); err == nil && m.kube.context == "" {
		r.note("the cluster is kubectl's context %s", strings.TrimSpace(string(out)))
	}
	r.oldDevice(ctx, w)
	r.oldPod(ctx, w)
	proven := r.newPath(ctx, w)
	r.cilium(ctx, proven)
	r.policy(w)
	return r.fails == 0
}

func (r *report) oldDevice(ctx context.Context, w *world) {
	switch w.stage() {
	case between:
		r.fail("%s; status says what to do", between)
		return
	case after:
		r.note("%s already", after)
		return
	}
	d := *w.holder
	for _, x := range w.devices {
		switch {
		case x.ID == d.ID || w.now != nil && x.ID == w.now.ID:
		case x.short() == oldParked:
			r.fail("%v has the name that the sidecar's device will be parked under: delete it in the admin console", x)
		case x.Hostname == bareName:
			r.note("%v also asks for the name: if it is a dead record of an earlier pod, delete it in the admin console", x)
		}
	}
	isNew, err := r.m.healthy(ctx, d.address())
	addr, _ := r.m.lookup(ctx, w.fqdn())
	switch {
	case err != nil:
		r.doubt("the device with the name, %v, does not answer on port %s: %v; is it a dead record, and is this machine on the tailnet?", d, r.m.port, err)
	case isNew:
		r.fail("the device with the name, %v, is served by the new proxy already, yet the operator does not call it its own: look at both in the admin console", d)
	case addr != d.address() && !slices.Contains(d.Addresses, addr):
		r.fail("%s leads to %q here, not to %s: is this machine on the tailnet with MagicDNS, and is --resolver right?", w.fqdn(), addr, d.address())
	default:
		r.ok("one device carries the name and answers: %v", d)
	}
}

func (r *report) oldPod(ctx context.Context, w *world) {
	if w.oldDeployment == nil {
		r.doubt("there is no deployment/%s in namespace %s: is this the right cluster?", oldObject, namespace)
		return
	}
	if len(w.oldPods) != 1 || !w.oldPods[0].ready() {
		r.doubt("deployment/%s should have one pod, and that ready: kubectl -n %s get pods", oldObject, namespace)
	} else {
		p := w.oldPods[0]
		r.ok("the old pod is ready: %s, %d restarts. Do not restart it: its device would not come back under this name", p.Metadata.Name, p.restarts(""))
	}
	objects, err := r.m.kube.oldObjects(ctx, *w.oldDeployment, w.newDeployment)
	if err != nil {
		r.fail("%v", err)
		return
	}
	r.argo(ctx, append(objects, "namespace/"+namespace))
}

// argo looks for objects that an Argo CD Application would delete once its repository no longer has them.
func (r *report) argo(ctx context.Context, objects []string) {
	var unguarded []string
	for _, name := range objects {
		var o object
		found, err := r.m.kube.get(ctx, &o, name, "--namespace="+namespace)
		if err != nil {
			r.fail("%v", err)
			return
		}
		a, l := o.Metadata.Annotations, o.Metadata.Labels
		tracked := a["argocd.argoproj.io/tracking-id"] != "" || l["app.kubernetes.io/instance"] != "" || l["argocd.argoproj.io/instance"] != ""
		options := strings.ReplaceAll(a["argocd.argoproj.io/sync-options"], " ", "")
		if o := strings.Split(options, ","); found && tracked && !(slices.Contains(o, "Prune=false") && slices.Contains(o, "Delete=false")) {
			unguarded = append(unguarded, name)
		}
	}
	if len(unguarded) == 0 {
		r.ok("no Argo CD Application would delete the old objects")
		return
	}
	r.fail("an Argo CD Application tracks these and would delete them with its next sync or its own end; keep them with\n"+
		"      kubectl -n %s annotate --overwrite %s argocd.argoproj.io/sync-options=Prune=false,Delete=false", namespace, strings.Join(unguarded, " "))
}

// newPath follows a request the way that clients will: tailnet, operator, Service, pod, API. It says whether it got through.
func (r *report) newPath(ctx context.Context, w *world) bool {
	if w.service == nil {
		r.note("service/%s is not there yet: the new manifests are not applied", newObject)
		return false
	}
	s, good := w.service, r.fails
	for _, port := range []int{8080, 80} {
		if !slices.ContainsFunc(s.Spec.Ports, func(p struct{ Port int }) bool { return p.Port == port }) {
			r.fail("service/%s lacks port %d: only the ports it has answer on the tailnet", newObject, port)
		}
	}
	if a := s.Metadata.Annotations; a["tailscale.com/expose"] != "true" || a["tailscale.com/hostname"] != bareName {
		r.fail(`service/%s lacks tailscale.com/expose: "true" or tailscale.com/hostname: %s: the operator takes no notice of it`, newObject, bareName)
	}
	if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == "None" {
		r.fail("service/%s has no ClusterIP: the operator needs one", newObject)
	}
	if !slices.Contains(s.Status.Conditions, condition{"TailscaleProxyReady", "True"}) {
		r.fail("the operator has not set TailscaleProxyReady on service/%s: kubectl -n %s describe service %s shows why", newObject, namespace, newObject)
	}
	if d := w.newDeployment; d == nil || d.Status.ReadyReplicas < 1 || d.Status.UpdatedReplicas < d.Status.Replicas {
		r.fail("deployment/%s is not rolled out: kubectl -n %s rollout status deployment/%s", newObject, namespace, newObject)
	}
	if r.fails == good {
		r.ok("service/%s has ports 8080 and 80 and is exposed; deployment/%s is ready", newObject, newObject)
	}
	if w.now == nil {
		r.fail("the operator has no device for service/%s: wait a minute, then look at the operator's log", newObject)
		return false
	}
	isNew, err := r.m.healthy(ctx, w.now.address())
	switch {
	case err != nil:
		r.fail("the operator's device %v does not answer on port %s: %v; Cilium and the tailnet policy are the usual reasons", *w.now, r.m.port, err)
		return false
	case !isNew:
		r.fail("the operator's device %v answers, but not as the new proxy does: whose pods does service/%s select?", *w.now, newObject)
		return false
	}
	if err := r.m.reachesAPI(ctx, w.now.address()); err != nil {
		r.fail("the operator's device %v answers, but the API behind it does not: %v", *w.now, err)
		return false
	}
	r.ok("the new path works up to the API and back: %v", *w.now)
	return true
}

// reachesAPI sends a request without a credential. The API's own refusal is the proof that it arrived.
func (m *migration) reachesAPI(ctx context.Context, address string) error {
	status, header, body, err := m.ask(ctx, address, "/v1/models")
	if err != nil {
		return err
	}
	var e struct {
		Error struct{ Type, Message string }
	}
	_ = json.Unmarshal(body, &e)
	switch {
	case e.Error.Type == "proxy_error":
		return fmt.Errorf("%d %s: kubectl -n %s logs deployment/%s says more", status, e.Error.Message, namespace, newObject)
	case status != http.StatusUnauthorized || header.Get("X-Proxy-Request-Id") == "":
		return fmt.Errorf("a request without a credential was answered with %d, expected 401 through the proxy", status)
	}
	return nil
}

// cilium reads the one setting that silently breaks the operator's way into a Service.
func (r *report) cilium(ctx context.Context, proven bool) {
	var cm struct{ Data map[string]string }
	found, err := r.m.kube.get(ctx, &cm, "configmap", "cilium-config", "--namespace=kube-system")
	replaced := cm.Data["kube-proxy-replacement"]
	switch {
	case err != nil:
		r.fail("%v", err)
	case !found:
		r.note("no Cilium here (no configmap/cilium-config in kube-system)")
	case cm.Data["bpf-lb-sock-hostns-only"] == "true":
		r.ok("Cilium translates forwarded packets (bpf-lb-sock-hostns-only is true)")
	case replaced == "" || replaced == "false":
		r.ok("Cilium does not replace kube-proxy")
	case proven:
		r.note("Cilium's bpf-lb-sock-hostns-only is not true; the new path works all the same, at the moment. Set socketLB.hostNamespaceOnly=true")
	case cm.Data["enable-envoy-config"] == "true":
		r.note("Cilium's bpf-lb-sock-hostns-only is not true, its Envoy configuration may make up for it; only the new path answering is proof")
	default:
		r.fail("Cilium replaces kube-proxy and bpf-lb-sock-hostns-only is not true: what the operator forwards to a Service gets lost.\n" +
			"      Set socketLB.hostNamespaceOnly=true in Cilium's Helm values and restart its agents")
	}
}

// policy cannot be read without one more scope, and the machine at hand is not the client that counts: so it is spelt out.
func (r *report) policy(w *world) {
	tag := "tag:k8s (the operator's default)"
	if w.now != nil {
		tag = strings.Join(w.now.Tags, ", ")
	}
	from := "the sidecar's device"
	if w.old != nil && len(w.old.Tags) > 0 {
		from = strings.Join(w.old.Tags, ", ")
	}
	r.note("tailnet policy: every client that may reach %s now must also be allowed to reach %s, ports 8080 and 80. Check it in the admin console, Access controls", from, tag)
}
