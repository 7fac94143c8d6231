package main

import (
	"context"
	"fmt"
	"time"
)

// swap gives the name to the operator's device.
func (m *migration) swap(ctx context.Context) error {
	w, err := m.look(ctx)
	if err != nil {
		return err
	}
	switch {
	case w.now == nil:
		return refuse("the operator has no device for service/%s: run preflight", newObject)
	case w.stage() == after:
		m.say("nothing to do: %s", after)
		return nil
	case !m.examine(ctx, w):
		return refuse("not swapped: correct what the FAIL lines name, then run swap again")
	}
	if err := m.exchange(ctx, w.now, w.old, parkedName, true); err != nil || m.dryRun {
		return err
	}
	m.say("The old pod keeps serving whoever still has its address. Leave it alone; cleanup is next.")
	return nil
}

// rollback gives the name back to the sidecar's device. It does not need the cluster.
func (m *migration) rollback(ctx context.Context) error {
	w, err := m.tailnet(ctx, nil)
	if err != nil {
		return err
	}
	if w.old == nil {
		return refuse("there is nothing to go back to: no device is called %s", parkedName)
	}
	switch who, err := m.answers(ctx, w.old.address()); {
	case w.holder == w.old:
		m.say("nothing to do: %s", before)
		return nil
	case err != nil:
		return refuse("the name would lead to a dead address: the sidecar's device does not answer (%v)", err)
	case who != oldProxy:
		return refuse("%v is not the sidecar's device: it leads to %s", w.old, who)
	}
	// The name need not answer now: that may be the reason to go back.
	return m.exchange(ctx, w.old, w.holder, newName, false)
}

// exchange gives the bare name to one device, and then watches the name. If the other device has the name, it parks that one first. On
// any failure or signal it restores the previous state. If careful, the name must answer before anything is changed.
func (m *migration) exchange(ctx context.Context, to, from *device, park string, careful bool) error {
	taken := from != nil && from.short() == bareName
	if m.dryRun {
		if taken {
			m.say("would rename %v to %s", from, park)
		}
		m.say("would rename %v to %s", to, bareName)
		m.say("would go back if %s did not answer from %s within %v", to.fqdn(), to.address(), m.watch)
		return nil
	}
	tell := context.AfterFunc(ctx, func() { m.say("interrupted: the call under way ends first, then everything goes back; please wait") })
	defer tell()
	p := m.startProber(to.fqdn())
	defer p.stop()
	if taken && careful {
		if err := p.await(ctx, from, m.watch); err != nil {
			return refuse("nothing was changed, %s does not answer steadily: %v", to.fqdn(), err)
		}
	}
	start := time.Now()
	if taken {
		err := m.rename(ctx, from, park)
		if err == nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return m.undo(p, to, from, park, err)
		}
	}
	if err := m.rename(ctx, to, bareName); err != nil {
		return m.undo(p, to, from, park, err)
	}
	m.say("the name is set; the calls took %v", time.Since(start).Round(time.Millisecond))
	if err := p.await(ctx, to, m.watch); err != nil {
		return m.undo(p, to, from, park, fmt.Errorf("the name does not answer from its new device: %w", err))
	}
	m.say("ok    %s leads to %s", to.fqdn(), to.address())
	m.say("measured: %s", p.summary())
	return nil
}

// undo gives the name back to the device that had it. If only the other device answers, it gets the name.
func (m *migration) undo(p *prober, to, from *device, park string, why error) error {
	ctx := context.Background() // the way back must not be interrupted
	home, shelf := from, to.short()
	if from == nil || !m.alive(ctx, from) && m.alive(ctx, to) {
		home, shelf = to, park
	}
	m.say("going back: %v", why)
	err := m.give(ctx, home, shelf)
	for pause := 500 * time.Millisecond; err != nil && pause < 30*time.Second; pause *= 2 { // six more attempts within half a minute
		m.say("%v; trying again", err)
		time.Sleep(pause)
		err = m.give(ctx, home, shelf)
	}
	if err != nil {
		return exit{3, fmt.Sprintf(`%v, and the way back failed too: %v
To set it right by hand: admin console, Machines, the device with address %s, Edit machine name, %s
(if another device has that name, rename that one first). Then run status.`, why, err, home.address(), bareName)}
	}
	if err := p.await(ctx, home, 10*time.Second); err != nil {
		return exit{3, fmt.Sprintf("%v; now %v has the name, but it does not answer: %v; run status", why, home, err)}
	}
	m.say("measured: %s", p.summary())
	if home == to {
		m.say("ok    it worked out in the end: %s leads to %s", home.fqdn(), home.address())
		return nil
	}
	m.say("ok    back: %s leads to %s", home.fqdn(), home.address())
	return refuse("%v", why)
}

func (m *migration) alive(ctx context.Context, d *device) bool {
	_, err := m.answers(ctx, d.address())
	return err == nil
}

// give tries once to give the bare name to a device. If another device has it, that one is renamed to shelf. give reads the current names
// from the tailnet, because a call that failed may still have had its effect. If it cannot read them, it tries anyway. That does no harm,
// because the API refuses a name that is taken.
func (m *migration) give(ctx context.Context, home *device, shelf string) error {
	devices, err := m.devices(ctx)
	if err != nil {
		m.say("%v", err)
	}
	for i := range devices {
		d := &devices[i]
		switch {
		case d.short() != bareName:
		case d.NodeID == home.NodeID:
			return nil
		default:
			if err := m.rename(ctx, d, shelf); err != nil {
				return err
			}
		}
	}
	return m.rename(ctx, home, bareName)
}
