package main

import "time"

// measureMemory measures what a stream holds that has been silent for a while.
func measureMemory(r *rig, c contender) ([]reading, error) {
	return r.with(c, func(t target, p *process) ([]reading, error) {
		warm, err := r.warmUp(t)
		defer closeStreams(warm)
		if err != nil {
			return nil, err
		}
		before, err := p.memory()
		if err != nil {
			return nil, err
		}
		streams, err := openStreams(t, r.size.opened)
		defer closeStreams(streams)
		if err != nil {
			return nil, err
		}
		time.Sleep(r.size.silence)
		after, err := p.memory()
		if err != nil {
			return nil, err
		}
		return []reading{{metric{Name: "memory per idle stream", Unit: "KiB"}, float64(after-before) / float64(r.size.opened) / 1024}}, nil
	})
}
