package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A world is what one look at the tailnet and the cluster found.
type world struct {
	devices []device
	old     *device // the sidecar's
	now     *device // the operator's
	holder  *device // whichever carries the bare name

	oldDeployment, newDeployment *deployment
	oldPods                      []pod
	service                      *service
}

// The stages that names alone can tell apart.
const (
	before  = "the sidecar's device carries the name"
	between = "NOBODY carries the name"
	after   = "the operator's device carries the name"
)

func (w *world) stage() string {
	switch w.holder {
	case nil:
		return between
	case w.now:
		return after
	}
	return before
}

// tailnet looks at the names. Who is who: the operator wrote its device's id into a Secret; the sidecar's device is the one
// with the bare name, or with the name that swap parked it under.
func (m *migration) tailnet(ctx context.Context) (*world, error) {
	ids, err := m.kube.operatorDevices(ctx)
	if err != nil {
		return nil, err
	}
	return m.names(ctx, ids)
}

func (m *migration) names(ctx context.Context, operator []string) (*world, error) {
	devices, err := m.api.devices(ctx)
	if err != nil {
		return nil, err
	}
	w := &world{devices: devices}
	for i := range devices {
		d := &devices[i]
		mine := slices.Contains(operator, d.ID)
		switch {
		case mine && w.now != nil:
			return nil, refuse("the operator has two devices for Service %s: %s and %s; delete the dead one in the admin console", newObject, *w.now, *d)
		case mine:
			w.now = d
		case d.short() == oldParked:
			if w.old != nil && w.old.short() == oldParked {
				return nil, refuse("two devices are called %s: %s and %s; delete the dead one in the admin console", oldParked, *w.old, *d)
			}
			if w.old == nil {
				w.old = d
			}
		}
		if d.short() != bareName {
			continue
		}
		if w.holder != nil {
			return nil, refuse("two devices are called %s: %s and %s; delete the dead one in the admin console", bareName, *w.holder, *d)
		}
		w.holder = d
		if !mine {
			w.old = d
		}
	}
	return w, nil
}

func (m *migration) cluster(ctx context.Context, w *world) error {
	d, s, old := &deployment{}, &service{}, &deployment{}
	for _, want := range []struct {
		into  any
		kind  string
		name  string
		found func()
	}{
		{old, "deployment", oldObject, func() { w.oldDeployment = old }},
		{d, "deployment", newObject, func() { w.newDeployment = d }},
		{s, "service", newObject, func() { w.service = s }},
	} {
		found, err := m.kube.get(ctx, want.into, want.kind, want.name, "--namespace="+namespace)
		if err != nil {
			return err
		}
		if found {
			want.found()
		}
	}
	var err error
	if w.oldDeployment != nil {
		w.oldPods, err = m.kube.pods(ctx, *w.oldDeployment)
	}
	return err
}

func (m *migration) look(ctx context.Context) (*world, error) {
	w, err := m.tailnet(ctx)
	if err != nil {
		return nil, err
	}
	return w, m.cluster(ctx, w)
}

// fqdn is the name in full. Every device of a tailnet has the same suffix.
func (w *world) fqdn() string {
	for _, d := range w.devices {
		if _, suffix, ok := strings.Cut(d.Name, "."); ok {
			return bareName + "." + strings.TrimSuffix(suffix, ".")
		}
	}
	return bareName
}

// parking is where the operator's device goes on the way back: what the operator's first registration would be called.
func (w *world) parking() string {
	for i := 1; ; i++ {
		name := fmt.Sprintf("%s-%d", bareName, i)
		if !slices.ContainsFunc(w.devices, func(d device) bool { return d.short() == name }) {
			return name
		}
	}
}

const swappedAt = "anthropic-oauth-proxy.migration/swapped-at"

// swapTime reads when the swap was; a swap nobody wrote down has no time.
func (w *world) swapTime() (time.Time, error) {
	if w.oldDeployment == nil || w.oldDeployment.Metadata.Annotations[swappedAt] == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, w.oldDeployment.Metadata.Annotations[swappedAt])
	if err != nil {
		return at, refuse("the annotation %s on deployment/%s is not a time: %v; remove it and run cleanup again to start the clock anew", swappedAt, oldObject, err)
	}
	return at, nil
}

// note writes the time of the swap where the next run finds it, or takes it away. It touches the Deployment's own metadata,
// not its pod template, so no pod restarts.
func (m *migration) note(ctx context.Context, at time.Time) error {
	value := swappedAt + "-"
	if !at.IsZero() {
		value = swappedAt + "=" + at.UTC().Format(time.RFC3339)
	}
	_, err := m.kube.run(ctx, "annotate", "deployment", oldObject, "--namespace="+namespace, "--overwrite", value, "--request-timeout=15s")
	return err
}
