package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// swap gives the name to the operator's device.
func (m *migration) swap(ctx context.Context) error {
	w, err := m.look(ctx)
	if err != nil {
		return err
	}
	switch {
	case w.stage() == after:
		m.say("nothing to do: %s: %v", after, *w.now)
		if at, err := w.swapTime(); err == nil && at.IsZero() && w.oldDeployment != nil && !m.dryRun {
			return m.note(ctx, time.Now())
		}
		return nil
	case w.now == nil:
		return refuse("the operator has no device for Service %s yet: apply the new manifests, then run preflight", newObject)
	case w.stage() == between:
		// Every second counts: the only question is whether the new path works.
		m.say("%s: finishing the swap", between)
		if _, err := m.healthy(ctx, w.now.address()); err != nil {
			return refuse("the operator's device does not answer (%v): run rollback instead", err)
		}
	default:
		if !m.examine(ctx, w) {
			return refuse("not swapped: set the lines marked FAIL right, then run swap again")
		}
	}
	from := device{} // nobody, if the sidecar's device is gone and only the second call is left to do
	if w.old != nil {
		from = *w.old
	}
	m.say("")
	if err := m.exchange(ctx, w, *w.now, from, oldParked, !m.force); err != nil || m.dryRun {
		return err
	}
	m.say("The old pod keeps serving whoever still has its address. Leave it alone; run cleanup in 15 minutes or later.")
	if w.oldDeployment == nil {
		return nil
	}
	if err := m.note(context.WithoutCancel(ctx), time.Now()); err != nil {
		m.say("note  the time of the swap could not be written down; cleanup will count from its first run: %v", err)
	}
	return nil
}

// rollback gives the name back to the sidecar's device.
func (m *migration) rollback(ctx context.Context) error {
	w, err := m.tailnet(ctx)
	if err != nil {
		return err
	}
	switch {
	case w.stage() == before:
		m.say("nothing to do: %s: %v", before, *w.holder)
		return nil
	case w.old == nil:
		return refuse("no device is called %s: there is nothing to go back to", oldParked)
	}
	if _, err := m.healthy(ctx, w.old.address()); err != nil {
		return refuse("the sidecar's device does not answer (%v): the name would lead to a dead address; %s", err,
			map[string]string{between: "run swap instead, at once", after: "it stays where it is"}[w.stage()])
	}
	other := device{}
	if w.now != nil {
		other = *w.now
	}
	// That the name answers now is no condition: that it does not may be the very reason for going back.
	if err := m.exchange(ctx, w, *w.old, other, w.parking(), false); err != nil || m.dryRun {
		return err
	}
	if err := m.note(context.WithoutCancel(ctx), time.Time{}); err != nil {
		m.say("note  the time of the swap could not be removed from deployment/%s; the next swap overwrites it: %v", oldObject, err)
	}
	return nil
}

// exchange makes the bare name lead from one device to another and watches it do so. Whatever fails, or a signal, leads back
// to where it was. If careful, the name has to answer before anything is touched.
func (m *migration) exchange(ctx context.Context, w *world, to, from device, park string, careful bool) error {
	first := from.short() == bareName
	if m.dryRun {
		if first {
			m.say("would rename %s to %s", from, park)
		}
		m.say("would rename %s to %s", to, bareName)
		m.say("would probe %s five times a second, and go back if it did not answer from %s within %v", w.fqdn(), to.address(), m.watch)
		return nil
	}
	tell := context.AfterFunc(ctx, func() { m.say("interrupted: the call under way ends first, then everything goes back; please wait") })
	defer tell()

	start := time.Now()
	p := m.startProber(w.fqdn())
	defer p.stop()
	if first && careful {
		switch err := p.await(ctx, start, m.watch); {
		case ctx.Err() != nil:
			return refuse("nothing was changed: %v", err)
		case err != nil:
			return refuse("nothing was changed: %s did not answer steadily even before the swap: %v", w.fqdn(), err)
		}
	}
	sent := time.Now()
	parked := sent
	if first {
		m.say("rename %s to %s", from, park)
		if err := m.api.rename(ctx, from, park); err != nil {
			return m.undo(w, p, to, from, park, err)
		}
		parked = time.Now()
		if ctx.Err() != nil {
			return m.undo(w, p, to, from, park, context.Cause(ctx))
		}
	}
	m.say("rename %s to %s", to, bareName)
	if err := m.api.rename(ctx, to, bareName); err != nil {
		return m.undo(w, p, to, from, park, err)
	}
	done := time.Now()
	if first {
		m.say("both names are set; nobody had the name for about %v, for %v at most",
			done.Sub(parked).Round(time.Millisecond), done.Sub(sent).Round(time.Millisecond))
	}

	// A resolver with a cache may send us to the old device for another ten minutes, which is no fault: it still serves.
	want := to.Addresses
	if m.dns == "system" {
		want = nil
	}
	if err := p.await(ctx, done, m.watch, want...); err != nil {
		return m.undo(w, p, to, from, park, fmt.Errorf("the name does not answer from its new device: %w", err))
	}
	p.stop()
	if got := p.last(); slices.Contains(to.Addresses, got) {
		m.say("ok    %s now leads to %s", w.fqdn(), to.address())
	} else {
		m.say("note  %s answers, but this machine's resolver still leads to %s; run status in ten minutes", w.fqdn(), got)
	}
	m.say("measured: %s", p.summary())
	return nil
}

// undo puts the name back where it was before the exchange, or, if only the other end answers, where it was to go. It asks the
// tailnet what happened rather than trusting what the failed call said: an answer that got lost may have been a yes.
func (m *migration) undo(w *world, p *prober, to, from device, park string, why error) error {
	ctx := context.Background() // the way back is not to be interrupted
	home := from
	if from.ID == "" || !m.answers(ctx, from) && m.answers(ctx, to) {
		home = to // where it was is a dead end
	}
	m.say("going back to %s: %v", home.ID, why)
	pause := 500 * time.Millisecond
	var err error
	for attempt := 1; ; attempt++ { // six of them in a quarter of a minute
		if home, err = m.settle(ctx, w, home, to, park); err == nil || attempt == 6 {
			break
		}
		m.say("      %v; trying again", err)
		if e, ok := errors.AsType[apiError](err); ok {
			pause = max(pause, e.retryAfter)
		}
		time.Sleep(pause)
		pause *= 2
	}
	if err != nil {
		return m.stranded(home, why, err)
	}
	answer := p.await(ctx, time.Now(), 10*time.Second)
	p.stop()
	m.say("measured: %s", p.summary())
	if answer != nil {
		return exit{3, fmt.Sprintf("%v: %v carries the name, but it does not answer: %v; run status", why, home, answer)}
	}
	if home.ID == to.ID {
		m.say("ok    it worked out in the end: %s answers, carried by %s (%s)", w.fqdn(), home.ID, home.address())
		return nil
	}
	m.say("ok    back: %s answers, carried by %s (%s)", w.fqdn(), home.ID, home.address())
	return refuse("%v", why)
}

func (m *migration) answers(ctx context.Context, d device) bool {
	_, err := m.healthy(ctx, d.address())
	return err == nil
}

// settle makes one attempt at giving the name to home, and says who has it then. If nobody had it before, whoever has it
// now may keep it.
func (m *migration) settle(ctx context.Context, w *world, home, to device, park string) (device, error) {
	var operator []string
	if w.now != nil {
		operator = []string{w.now.ID}
	}
	seen, err := m.names(ctx, operator)
	if err != nil {
		if m.api.rename(ctx, home, bareName) == nil { // refused if another device has the name: it can do no harm
			return home, nil
		}
		return home, err
	}
	if seen.holder != nil && (w.holder == nil || seen.holder.ID == home.ID) {
		return *seen.holder, nil
	}
	if seen.holder != nil {
		name := park
		if seen.holder.ID == to.ID {
			name = to.short() // what it was called before
		}
		m.say("rename %s to %s", *seen.holder, name)
		if err := m.api.rename(ctx, *seen.holder, name); err != nil {
			return home, err
		}
	}
	m.say("rename %s to %s", home, bareName)
	return home, m.api.rename(ctx, home, bareName)
}

func (m *migration) stranded(home device, why, err error) error {
	where := "unknown, the tailnet could not be read"
	if devices, err := m.api.devices(context.Background()); err == nil {
		where = between
		for _, d := range devices {
			if d.short() == bareName {
				where = d.String()
			}
		}
	}
	return exit{3, fmt.Sprintf(`%v, and the way back failed too: %v
  who carries the name: %s
  To set it right by hand: admin console, Machines, the device with address %s, Edit machine name, %s
  (if another device has that name, rename that one first). Or run status, then rollback or swap, once the API answers again.`,
		why, err, where, home.address(), bareName)}
}
