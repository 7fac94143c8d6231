package main

import (
	"context"
	"slices"
	"strings"
)

// A report counts findings and prints each of them at once.
type report struct {
	*migration
	*world
	fails int
}

func (r *report) ok(format string, a ...any)   { r.say("ok    "+format, a...) }
func (r *report) note(format string, a ...any) { r.say("note  "+format, a...) }
func (r *report) fail(format string, a ...any) { r.fails++; r.say("FAIL  "+format, a...) }

func (m *migration) preflight(ctx context.Context) error {
	w, err := m.look(ctx)
	if err != nil {
		return err
	}
	if !m.examine(ctx, w) {
		return refuse("correct what the FAIL lines name, then run preflight again")
	}
	m.say("nothing stands in the way")
	return nil
}

// examine prints every finding and reports whether a swap is possible.
func (m *migration) examine(ctx context.Context, w *world) bool {
	r := &report{migration: m, world: w}
	r.oldDevice(ctx)
	r.oldPod()
	r.argo()
	r.cilium(ctx)
	r.newPath(ctx)
	// This token cannot read the tailnet policy. A test from this machine would not help, because the client is another one.
	r.note("look into the tailnet policy: may every client of the sidecar's device also reach the operator's (tag:k8s), ports 8080 and 80?")
	return r.fails == 0
}

func (r *report) oldDevice(ctx context.Context) {
	switch r.stage() {
	case between:
		r.fail("%s: run rollback, at once", between)
		return
	case after:
		r.note("%s already", after)
		return
	}
	for i := range r.world.devices {
		if d := &r.world.devices[i]; d.short() == parkedName {
			r.fail("%v has the name that swap gives to the sidecar's device: delete it in the admin console", d)
		}
	}
	address, err := r.lookup(ctx, r.old.fqdn())
	var who string
	if err == nil {
		who, err = r.answers(ctx, address)
	}
	switch {
	case err != nil:
		r.fail("the device with the name, %v, does not answer: %v; is it a dead record, or is this machine not on the tailnet with MagicDNS?", r.old, err)
	case !slices.Contains(r.old.Addresses, address):
		r.fail("%s leads to %s here, not to %s: is this machine on the tailnet with MagicDNS?", r.old.fqdn(), address, r.old.address())
	case who == newProxy:
		r.fail("the device with the name, %v, leads to the new proxy, but is not the operator's for service/%s: look at both in the admin console", r.old, newObject)
	default:
		r.ok("the device with the name answers: %v", r.old)
	}
}

func (r *report) oldPod() {
	pods := r.cluster.oldPods()
	if r.cluster.find("deployment/"+oldObject) == nil || len(pods) != 1 || !pods[0].ready() {
		r.fail("deployment/%s should have exactly one pod, and it must be ready. Is this the right cluster? kubectl -n %s get pods", oldObject, namespace)
		return
	}
	r.ok("the old pod is ready: %s, %d restarts. Do not restart it: its device would not come back under this name", pods[0].Metadata.Name, pods[0].restarts())
}

// argo looks for objects that an Argo CD Application would delete once its repository no longer has them.
func (r *report) argo() {
	var doomed []string
	for _, o := range r.cluster.objects {
		a, l := o.Metadata.Annotations, o.Metadata.Labels
		tracked := a["argocd.argoproj.io/tracking-id"] + l["app.kubernetes.io/instance"] + l["argocd.argoproj.io/instance"]
		options := a["argocd.argoproj.io/sync-options"]
		kept := strings.Contains(options, "Prune=false") && strings.Contains(options, "Delete=false")
		if tracked != "" && !kept && (o.foreign() || o.ref() == "namespace/"+namespace) {
			doomed = append(doomed, o.ref())
		}
	}
	if doomed == nil {
		r.ok("no Argo CD Application would delete the old objects")
		return
	}
	r.fail("an Argo CD Application would delete these with its next sync or its own end; keep them with\n"+
		"kubectl -n %s annotate --overwrite %s argocd.argoproj.io/sync-options=Prune=false,Delete=false", namespace, strings.Join(doomed, " "))
}

// newPath sends a request on the path that clients will use: tailnet, operator, Service, pod, API.
func (r *report) newPath(ctx context.Context) {
	switch {
	case r.cluster.find("service/"+newObject) == nil:
		r.note("service/%s is not there yet: the new manifests are not applied", newObject)
		return
	case r.now == nil:
		r.fail("the operator has no device for service/%s: wait a minute, then look at the operator's log", newObject)
		return
	}
	who, err := r.answers(ctx, r.now.address())
	if err == nil && who == newProxy {
		err = r.reachesAPI(ctx, r.now)
	}
	switch {
	case err != nil:
		r.fail("the new path does not work, %v: %v", r.now, err)
	case who != newProxy:
		r.fail("the operator's device %v leads to %s: whose pods does service/%s select?", r.now, who, newObject)
	default:
		r.ok("the new path works up to the API and back: %v", r.now)
	}
}

// cilium reads the setting that silently breaks the operator's path to a Service. Only newPath proves that the path works.
func (r *report) cilium(ctx context.Context) {
	out, err := r.kubectl(ctx, "get", "configmap/cilium-config", "--namespace=kube-system", "--ignore-not-found",
		"--output=jsonpath={.data.kube-proxy-replacement},{.data.bpf-lb-sock-hostns-only}")
	replaces, hostOnly, _ := strings.Cut(string(out), ",")
	switch {
	case err != nil:
		r.fail("%v", err)
	case replaces == "" || replaces == "false" || hostOnly == "true":
		r.ok("Cilium leaves alone what the operator forwards, or is not there")
	default:
		r.note("Cilium may lose what the operator forwards: if the new path does not work, set socketLB.hostNamespaceOnly=true in Cilium's Helm values")
	}
}
