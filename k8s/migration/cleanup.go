package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// oldObjects are deleted in this order. The Deployment comes last: as long as it exists, cleanup can be run again.
var oldObjects = []string{"service/" + oldObject, "secret/tailscale-authkey", "secret/ghcr-pull-secret", "deployment/" + oldObject}

// cleanup removes the old pod and what belongs to it. It can be interrupted at any step and run again.
func (m *migration) cleanup(ctx context.Context) error {
	w, err := m.replaced(ctx)
	if err != nil {
		return err
	}
	switch {
	case w.old == nil && w.cluster.find("deployment/"+oldObject) == nil:
		m.say("nothing to do: the old Deployment and the old device are gone")
	case m.dryRun:
		m.say("would watch the old pod for %v, end its proxy process, delete %s and the tailnet device %v", m.watch, strings.Join(oldObjects, ", "), w.old)
	default:
		if err := m.idle(ctx, w); err != nil {
			return err
		}
		if err := m.endProxies(ctx); err != nil {
			return err
		}
		if err := m.remove(ctx, w); err != nil {
			return err
		}
		m.say("By hand: revoke the sidecar's auth key (admin console, Settings, Keys). It is of no use any more, but still valid.")
	}
	for _, o := range w.cluster.objects {
		if o.foreign() && !slices.Contains(oldObjects, o.ref()) {
			m.say("left  %s: not part of the new deployment; delete it if it was the sidecar's", o.ref())
		}
	}
	return nil
}

// replaced reads the current state. It refuses unless the new path has the name and works.
func (m *migration) replaced(ctx context.Context) (*world, error) {
	w, err := m.look(ctx)
	if err != nil {
		return nil, err
	}
	if w.stage() != after {
		return nil, refuse("nothing was deleted: %s; run status", w.stage())
	}
	who, err := m.answers(ctx, w.now.address())
	if err == nil && who != newProxy {
		err = fmt.Errorf("it leads to %s", who)
	}
	if err != nil {
		return nil, refuse("nothing was deleted: the new path does not work (%v), and the old one is the way back; run status", err)
	}
	return w, nil
}

// idle waits until the old pod has served nothing for the whole watch time, in which a client may still use its address.
func (m *migration) idle(ctx context.Context, w *world) error {
	last, err := "", fmt.Errorf("no device is called %s", parkedName)
	if w.old != nil {
		last, err = m.served(ctx, w.old)
	}
	switch {
	case err != nil && !slices.ContainsFunc(w.cluster.oldPods(), (*object).ready):
		m.say("the old pod is dead: it serves nobody")
		return nil
	case err != nil:
		return refuse("nothing was deleted: cannot tell whether the old pod still serves: %v", err)
	}
	m.say("watching the old pod's proxy_requests_total until it has not changed for %v; Ctrl-C stops this and deletes nothing", m.watch)
	begin, ended := time.Now(), false // ended: the proxy process was ended at begin, because a client kept it busy
	for since := begin; time.Since(since) < m.watch; {
		select {
		case <-ctx.Done():
			return refuse("nothing was deleted: %v", context.Cause(ctx))
		case <-time.After(m.watch / 30):
		}
		now, err := m.served(ctx, w.old)
		if err == nil && now == last {
			continue
		}
		last, since = now, time.Now()
		switch {
		case err != nil:
			begin = since
			m.say("%s  the old pod's counter cannot be read (%v): the wait starts again", since.Format("15:04:05"), err)
		case since.Sub(begin) < m.watch:
			m.say("%s  the old pod served a request: the wait starts again", since.Format("15:04:05"))
		case ended:
			return refuse("nothing was deleted: the old pod still serves, %v after its proxy process ended: a client uses the address %s instead of the name; find it and change that, then run cleanup again", m.watch, w.old.address())
		default:
			m.say("a client keeps the old pod busy: after %v it still serves. Its proxy process ends now, so that the client looks the name up again", m.watch)
			if err := m.endProxies(ctx); err != nil {
				return err
			}
			begin, since, ended = time.Now(), time.Now(), true
		}
	}
	m.say("ok    the old pod served nothing for %v", m.watch)
	return nil
}

// endProxies ends the proxy process of each old pod that is ready, if the new path works.
func (m *migration) endProxies(ctx context.Context) error {
	w, err := m.replaced(ctx) // the state may have changed since it was last read
	if err != nil {
		return err
	}
	for _, pod := range w.cluster.oldPods() {
		if !pod.ready() {
			continue
		}
		if err := m.endProxy(ctx, pod); err != nil {
			return refuse("nothing was deleted: %v\nend it by hand, or delete deployment/%s by hand (a client with a pooled connection may then lose one request), and run cleanup again", err, oldObject)
		}
	}
	return nil
}

func (m *migration) remove(ctx context.Context, w *world) error {
	for _, ref := range oldObjects {
		if w.cluster.find(ref) == nil {
			continue
		}
		if _, err := m.kubectl(ctx, "delete", ref, "--namespace="+namespace, "--ignore-not-found"); err != nil {
			return refuse("stopped half way, nobody uses what is left: %v; run cleanup again", err)
		}
		m.say("deleted %s", ref)
	}
	if w.old == nil {
		return nil
	}
	if err := m.api.Devices().Delete(context.WithoutCancel(ctx), w.old.NodeID); err != nil {
		return refuse("the cluster is clean, only the tailnet device is left: %v; run cleanup again", err)
	}
	m.say("deleted the tailnet device %v", w.old)
	return nil
}

// endProxy ends the old proxy process while tailscaled still runs beside it. So clients with idle pooled connections get a FIN, instead
// of an error on their next request. The kubelet starts the container again: at once the first time, and after 10 s
// (CrashLoopBackOff) if it ran for less than two minutes.
func (m *migration) endProxy(ctx context.Context, pod *object) error {
	var names []string
	for _, c := range pod.Spec.Containers {
		if !strings.Contains(c.Name+c.Image, "tailscale") {
			names = append(names, c.Name)
		}
	}
	if len(names) != 1 {
		return fmt.Errorf("which container of the old pod is the proxy? %v", names)
	}
	if _, err := m.kubectl(ctx, "exec", pod.Metadata.Name, "--namespace="+namespace, "--container="+names[0], "--", "/bin/sh", "-c", "kill -TERM 1"); err != nil {
		return err
	}
	m.say("told the old proxy process to end (container %s)", names[0])
	for begin := time.Now(); time.Since(begin) < time.Minute && ctx.Err() == nil; time.Sleep(time.Second) {
		c, err := m.readCluster(ctx)
		if err != nil {
			return err
		}
		if now := c.find(pod.ref()); now == nil || now.restarts() > pod.restarts() {
			return nil
		}
	}
	return errors.New("the old proxy process does not end")
}
