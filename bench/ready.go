package main

import "slices"

// measureReady measures the time from exec until a connection is accepted, and for ours until /health says 200.
func measureReady(r *rig, c contender) ([]reading, error) {
	var took []float64
	for range r.size.starts {
		p, err := c.start(r)
		if err != nil {
			return nil, err
		}
		at, err := p.ready(c)
		p.stop()
		if err != nil {
			return nil, err
		}
		took = append(took, micros(at-p.started)/1000)
	}
	slices.Sort(took)
	return []reading{{metric{Name: "start until ready", Unit: "ms"}, quantile(took, 0.5)}}, nil
}
