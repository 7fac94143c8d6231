package main

import "context"

// status prints the current state and the next step. It also works without the cluster.
func (m *migration) status(ctx context.Context) error {
	c, away := m.readCluster(ctx)
	if away != nil {
		c = nil
	}
	w, err := m.tailnet(ctx, c)
	if err != nil {
		return err
	}
	m.say("%s", w.stage())
	for i := range w.devices {
		d := &w.devices[i]
		if !d.related() {
			continue
		}
		if who, err := m.answers(ctx, d.address()); err != nil {
			m.say("device  %v DOES NOT ANSWER: %v", d, err)
		} else {
			m.say("device  %v leads to %s", d, who)
		}
	}
	if c == nil {
		m.say("cluster UNREACHABLE: %v", away)
	} else {
		for _, o := range c.objects {
			if o.Kind == "Pod" {
				m.say("pod     %s, ready: %v, %d restarts", o.Metadata.Name, o.ready(), o.restarts())
			}
		}
	}
	m.say("next: %s", w.next())
	return nil
}

func (w *world) next() string {
	switch stage := w.stage(); {
	case stage == between:
		return "rollback, at once: clients find nothing until then"
	case stage == after && w.old == nil && (w.cluster == nil || w.cluster.find("deployment/"+oldObject) == nil):
		return "nothing, the migration is over"
	case stage == after:
		return "cleanup; until then rollback undoes everything"
	}
	return "preflight, then swap"
}
