package main

import "errors"

// smallClients is how many clients ask at the same time, each again as soon as it is answered.
const smallClients = 16

// measureSmall measures the CPU of a small request and its answer.
func measureSmall(r *rig, c contender) ([]reading, error) {
	return r.with(c, func(t target, p *process) ([]reading, error) {
		if err := askMany(t, r.size.warmUpRequests); err != nil {
			return nil, err
		}
		before, err := p.cpu()
		if err != nil {
			return nil, err
		}
		if err := askMany(t, r.size.small); err != nil {
			return nil, err
		}
		after, err := p.cpu()
		if err != nil {
			return nil, err
		}
		return []reading{{metric{Name: "CPU per small request", Unit: "µs"}, micros(after-before) / float64(r.size.small)}}, nil
	})
}

// askMany makes n small requests, on smallClients connections.
func askMany(t target, n int) error {
	errs := make(chan error, smallClients)
	for first := range smallClients {
		go func() {
			c, err := dial(t)
			if err == nil {
				defer c.Close()
			}
			request := t.request("/small", requestBody)
			for i := first; i < n && err == nil; i += smallClients {
				err = c.ask(request)
			}
			errs <- err
		}()
	}
	var all error
	for range smallClients {
		all = errors.Join(all, <-errs)
	}
	return all
}
