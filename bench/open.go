package main

// measureOpen measures the CPU it takes to open a stream on a new connection, up to its first event. The streams stay
// open, so that a proxy that speaks HTTP/1.1 to the upstream has to connect for each.
func measureOpen(r *rig, c contender) ([]reading, error) {
	return r.with(c, func(t target, p *process) ([]reading, error) {
		warm, err := r.warmUp(t)
		defer closeStreams(warm)
		if err != nil {
			return nil, err
		}
		before, err := p.cpu()
		if err != nil {
			return nil, err
		}
		streams, err := openStreams(t, r.size.opened)
		defer closeStreams(streams)
		if err != nil {
			return nil, err
		}
		after, err := p.cpu()
		if err != nil {
			return nil, err
		}
		return []reading{{metric{Name: "CPU to open a stream", Unit: "µs"}, micros(after-before) / float64(r.size.opened)}}, nil
	})
}
