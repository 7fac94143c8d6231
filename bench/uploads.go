package main

import (
	"errors"
	"fmt"
	"time"
)

// sampling is how often memory is read while the uploads go on.
const sampling = 20 * time.Millisecond

// measureUploads measures the most memory that the proxy holds while many large requests come at the same time, for an
// upstream that takes them more slowly than the clients send them.
func measureUploads(r *rig, c contender) ([]reading, error) {
	return r.with(c, func(t target, p *process) ([]reading, error) {
		if err := askMany(t, r.size.warmUpRequests); err != nil {
			return nil, err
		}
		request := t.request("/upload", uploadBody())
		answered := make(chan error, r.size.uploads)
		for range r.size.uploads {
			go func() { answered <- upload(t, request) }()
		}
		var peak int64
		var failed error
		tick := time.NewTicker(sampling)
		defer tick.Stop()
		for left := r.size.uploads; left > 0; {
			select {
			case err := <-answered:
				failed = errors.Join(failed, err)
				left--
			case <-tick.C:
				m, err := p.memory()
				if err != nil {
					return nil, err
				}
				peak = max(peak, m)
			}
		}
		if failed != nil {
			return nil, failed
		}
		return []reading{{metric{Name: fmt.Sprintf("peak memory, %d uploads of 10 MiB", r.size.uploads), Unit: "MiB"}, float64(peak) / (1 << 20)}}, nil
	})
}

func upload(t target, request []byte) error {
	c, err := dial(t)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.ask(request)
}
