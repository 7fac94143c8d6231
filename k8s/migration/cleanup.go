package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// quarantine covers what may still lead to the old device after the swap: cached DNS answers live ten minutes.
const quarantine = 15 * time.Minute

// cleanup removes the old pod and what belongs to it, in an order that can be interrupted and taken up again anywhere.
func (m *migration) cleanup(ctx context.Context) error {
	w, err := m.look(ctx)
	if err != nil {
		return err
	}
	if w.stage() != after {
		return refuse("not cleaned up: %s; run status", w.stage())
	}
	if w.oldDeployment == nil && w.old == nil {
		m.say("nothing to do: the old Deployment and the old device are gone")
		return m.leftovers(ctx)
	}
	if isNew, err := m.healthy(ctx, w.now.address()); err != nil || !isNew {
		return refuse("not cleaned up: the new path is not well (%v), and the old one is the way back; run status", err)
	}
	if w.oldDeployment != nil {
		if err := m.idle(ctx, w); err != nil {
			return err
		}
		if err := m.removeObjects(ctx, w); err != nil {
			return err
		}
	}
	if w.old != nil {
		if m.dryRun {
			m.say("would delete the tailnet device %v", *w.old)
		} else if err := m.api.remove(ctx, *w.old); err != nil {
			return refuse("the cluster is clean, the device record is left: %v; run cleanup again", err)
		} else {
			m.say("deleted the tailnet device %v", *w.old)
		}
	}
	m.say("\nBy hand: revoke the sidecar's auth key (admin console, Settings, Keys). It is of no use any more, but still valid.")
	return m.leftovers(ctx)
}

// idle refuses as long as anybody may be using the old pod.
func (m *migration) idle(ctx context.Context, w *world) error {
	at, err := w.swapTime()
	if err != nil {
		return err
	}
	if at.IsZero() {
		if !m.dryRun {
			if err := m.note(ctx, time.Now()); err != nil {
				return err
			}
		}
		return refuse("not cleaned up: nobody wrote down when the swap was, so the clock starts now; run cleanup again in %v", quarantine)
	}
	age := time.Since(at)
	switch {
	case age < 0:
		return refuse("not cleaned up: the swap was written down for %s, which is still to come; is this machine's clock right?", at.Local().Format(time.RFC3339))
	case age < quarantine:
		return refuse("not cleaned up: the swap was %v ago; wait until %s (%v, because resolvers keep the old address for ten minutes)",
			age.Round(time.Second), at.Add(quarantine).Local().Format("15:04:05"), quarantine)
	}
	if !slices.ContainsFunc(w.oldPods, pod.ready) {
		m.say("the old pod is not ready: it serves nobody")
		return nil
	}
	if w.old == nil {
		return refuse("not cleaned up: the old pod is ready, but no device is called %s, so what it serves cannot be seen; find its device in the admin console and give it that name", oldParked)
	}
	before, err := m.served(ctx, w.old.address())
	if err != nil {
		return refuse("not cleaned up: whether the old pod still serves cannot be seen: %v", err)
	}
	m.say("watching the old pod's proxy_requests_total for %v", m.watch)
	select {
	case <-ctx.Done():
		return refuse("nothing was changed: %v", context.Cause(ctx))
	case <-time.After(m.watch):
	}
	now, err := m.served(ctx, w.old.address())
	if err != nil {
		return refuse("not cleaned up: whether the old pod still serves cannot be seen: %v", err)
	}
	if now != before {
		return refuse("not cleaned up: the old pod served %v requests in the last %v; some client still has its address. Run cleanup again later", now-before, m.watch)
	}
	m.say("ok    the old pod served nothing in the last %v", m.watch)
	return nil
}

func (m *migration) removeObjects(ctx context.Context, w *world) error {
	objects, err := m.kube.oldObjects(ctx, *w.oldDeployment, w.newDeployment)
	if err != nil {
		return err
	}
	if !m.noSignal {
		for _, p := range w.oldPods {
			if !p.ready() {
				continue
			}
			if err := m.endProxy(ctx, w, p); err != nil {
				return err
			}
		}
	}
	for _, o := range objects {
		if m.dryRun {
			m.say("would delete %s", o)
			continue
		}
		if _, err := m.kube.run(ctx, "delete", o, "--namespace="+namespace, "--ignore-not-found", "--wait=true", "--timeout=5m"); err != nil {
			return refuse("stopped half way, nobody uses what is left: %v; run cleanup again", err)
		}
		m.say("deleted %s", o)
	}
	return nil
}

// endProxy ends the old proxy process while tailscaled still runs beside it, so that clients with idle pooled connections
// are told (a FIN) instead of finding out with their next request. The kubelet starts the container again, which is fine.
func (m *migration) endProxy(ctx context.Context, w *world, p pod) error {
	name := m.container
	if name == "" {
		var others []string
		for _, c := range w.oldDeployment.Spec.Template.Spec.Containers {
			if !strings.Contains(c.Name+" "+c.Image, "tailscale") {
				others = append(others, c.Name)
			}
		}
		if len(others) != 1 {
			return refuse("which container of the old pod is the proxy? Name it with --old-container: %s", strings.Join(others, ", "))
		}
		name = others[0]
	}
	if m.dryRun {
		m.say("would send SIGTERM to the process in container %s of pod %s", name, p.Metadata.Name)
		return nil
	}
	const advice = "run cleanup --no-signal to delete it as it is: a client with a pooled connection may then lose one request"
	if _, err := m.kube.run(ctx, "exec", p.Metadata.Name, "--namespace="+namespace, "--container="+name, "--", "/bin/sh", "-c", "kill -TERM 1"); err != nil {
		return refuse("nothing was deleted: the old proxy process could not be told to end (%v); %s", err, advice)
	}
	m.say("sent SIGTERM to the old proxy process (container %s)", name)
	was := p.restarts(name)
	for deadline := time.Now().Add(m.watch); time.Now().Before(deadline); {
		pods, err := m.kube.pods(ctx, *w.oldDeployment)
		if err != nil {
			return refuse("stopped half way, nothing was deleted: %v; run cleanup again", err)
		}
		i := slices.IndexFunc(pods, func(x pod) bool { return x.Metadata.Name == p.Metadata.Name })
		if i < 0 || pods[i].restarts(name) > was || !pods[i].ready() {
			return nil
		}
		select {
		case <-ctx.Done():
			return refuse("stopped half way, nothing was deleted: %v; run cleanup again", context.Cause(ctx))
		case <-time.After(time.Second):
		}
	}
	return refuse("nothing was deleted: the old proxy process did not end within %v of SIGTERM; %s", m.watch, advice)
}

// leftovers names what is in the namespace and belongs to neither pod as far as this command can tell.
func (m *migration) leftovers(ctx context.Context) error {
	out, err := m.kube.run(ctx, "get", "service,configmap,secret,serviceaccount,role,rolebinding,persistentvolumeclaim,deployment",
		"--namespace="+namespace, "--selector=app.kubernetes.io/name!="+newObject, "--output=name", "--request-timeout=15s")
	if err != nil {
		return fmt.Errorf("everything is done, only the look at what is left failed: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		name := strings.TrimSpace(line)
		kubernetes := name == "configmap/kube-root-ca.crt" || name == "serviceaccount/default"
		if !kubernetes && !strings.HasSuffix(name, "/"+newObject) && !m.dryRun {
			m.say("left  %s: not part of the new deployment; delete it if it is the sidecar's", name)
		}
	}
	return nil
}
