package main

import "slices"

// measureFirstByte measures how long it takes until the head of an answer is there, for small requests one after the
// other on one connection.
func measureFirstByte(r *rig, c contender) ([]reading, error) {
	return r.with(c, func(t target, _ *process) ([]reading, error) {
		if err := askMany(t, r.size.warmUpRequests); err != nil {
			return nil, err
		}
		conn, err := dial(t)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		request := t.request("/small", requestBody)
		var took []float64
		for i := range r.size.sequential + 1 {
			from := now()
			if err := conn.send(request); err != nil {
				return nil, err
			}
			if i > 0 { // the first one may find no connection to the upstream
				took = append(took, micros(now()-from))
			}
			if err := conn.readAnswer(); err != nil {
				return nil, err
			}
		}
		slices.Sort(took)
		return []reading{{metric{"time to first byte, p50", "µs", true}, quantile(took, 0.5)}}, nil
	})
}
