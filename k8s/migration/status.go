package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// status says where things stand and what comes next. It goes on where it can when a part cannot be read.
func (m *migration) status(ctx context.Context) error {
	w, err := m.look(ctx)
	if err != nil {
		return err
	}
	m.say("%s", w.stage())
	m.device(ctx, "sidecar's ", w.old)
	m.device(ctx, "operator's", w.now)
	switch {
	case w.oldDeployment == nil:
		m.say("old pod     none: there is no deployment/%s", oldObject)
	case len(w.oldPods) == 0:
		m.say("old pod     none, though deployment/%s is there", oldObject)
	}
	for _, p := range w.oldPods {
		state := "NOT READY"
		if p.ready() {
			state = "ready"
		}
		m.say("old pod     %s, %s, %d restarts", p.Metadata.Name, state, p.restarts(""))
	}
	if d := w.newDeployment; d == nil {
		m.say("new pod     none: there is no deployment/%s", newObject)
	} else {
		m.say("new pod     %d of %d ready", d.Status.ReadyReplicas, d.Status.Replicas)
	}
	if w.old != nil {
		if n, err := m.served(ctx, w.old.address()); err != nil {
			m.say("old served  unknown: %v", err)
		} else {
			m.say("old served  %s requests since it started", strconv.FormatFloat(n, 'f', -1, 64))
		}
	}
	at, err := w.swapTime()
	if err != nil {
		m.say("swapped     %v", err)
	} else if !at.IsZero() {
		m.say("swapped     %s, %v ago", at.Format(time.RFC3339), time.Since(at).Round(time.Second))
	}
	m.say("")
	m.say("next: %s", w.next())
	return nil
}

func (m *migration) device(ctx context.Context, label string, d *device) {
	if d == nil {
		m.say("%s  no device", label)
		return
	}
	health := "answers as the old proxy does"
	if isNew, err := m.healthy(ctx, d.address()); err != nil {
		health = fmt.Sprintf("DOES NOT ANSWER: %v", err)
	} else if isNew {
		health = "answers as the new proxy does"
	}
	m.say("%s  %v: %s", label, *d, health)
}

func (w *world) next() string {
	switch {
	case w.stage() == between && w.now != nil:
		return "swap finishes, rollback goes back; clients find nothing until one of them has run"
	case w.stage() == between && w.old != nil:
		return "rollback, at once: clients find nothing until it has run"
	case w.stage() == between:
		return "no device that could carry the name is known: apply the new manifests, then run swap"
	case w.stage() == after && w.oldDeployment == nil && w.old == nil:
		return "nothing: the migration is over"
	case w.stage() == after:
		return "cleanup, 15 minutes after the swap or later; until then rollback undoes everything"
	case w.now == nil:
		return "preflight, then apply the new manifests"
	}
	return "preflight, then swap"
}

// served is the sum of the proxy's request counter over all its labels.
func (m *migration) served(ctx context.Context, address string) (float64, error) {
	status, _, body, err := m.ask(ctx, address, "/metrics")
	if err != nil {
		return 0, err
	}
	if status != 200 {
		return 0, fmt.Errorf("/metrics answers %d", status)
	}
	const name = "proxy_requests_total"
	sum, known := 0.0, false
	for lines := bufio.NewScanner(bytes.NewReader(body)); lines.Scan(); {
		line := lines.Text()
		known = known || strings.HasPrefix(line, "# TYPE "+name+" ")
		rest, ok := strings.CutPrefix(line, name)
		if !ok || !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, " ") {
			continue
		}
		known = true
		rest = rest[strings.LastIndex(rest, "}")+1:]
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			return 0, fmt.Errorf("/metrics has a line that is cut off: %q", line)
		}
		v, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return 0, fmt.Errorf("/metrics: %w", err)
		}
		sum += v
	}
	if !known {
		return 0, fmt.Errorf("/metrics does not mention %s", name)
	}
	return sum, nil
}
