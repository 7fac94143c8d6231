//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// distances are the round trips between proxy and stand-in: to the next city, and across an ocean.
var distances = []time.Duration{20 * time.Millisecond, 80 * time.Millisecond}

// measureDistance measures what a person at a distance from the API waits for. Bytes are late, but the path is as broad as the
// machine: what takes longer than the round trips it needs is held up by a window.
func measureDistance(r *rig, c *client.Client, _ *process) ([]reading, error) {
	var readings []reading
	add := func(what string, f func() error) error {
		begun := time.Now()
		if err := f(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		readings = append(readings, reading{metric{name: fmt.Sprintf("%s, %v away", what, r.far), unit: "ms"}, micros(time.Since(begun)) / 1000})
		return nil
	}
	if err := add("first event, cold connection", func() error { return r.firstEvent(c) }); err != nil {
		return nil, err
	}
	for _, kind := range []struct {
		what string
		f    func() error
	}{
		{"first event, warm connection", func() error { return r.firstEvent(c) }},
		{"answer of 300 KB", func() error { return c.Ask(r.ctx, standin.Part{Size: 300_000}, requestBody) }},
		{"download of 4 MiB", func() error { return c.Ask(r.ctx, standin.Part{Size: 4 << 20}, requestBody) }},
		{"upload of 9 MB", func() error { return c.Ask(r.ctx, standin.Part{}, uploadBody()[:9_000_000]) }},
		{"upload of 30 MB", func() error { return c.Ask(r.ctx, standin.Part{}, uploadBody()) }},
	} {
		first := len(readings)
		for range r.size.far {
			if err := add(kind.what, kind.f); err != nil {
				return nil, err
			}
		}
		readings = append(readings[:first], middle(readings[first:]))
	}
	delay, err := r.farEvents(c)
	return append(readings, reading{metric{fmt.Sprintf("delay of an event, %v away, p50", r.far), "µs", true}, delay}), err
}

// middle is the reading with the median value.
func middle(readings []reading) reading {
	var values []float64
	for _, r := range readings {
		values = append(values, r.value)
	}
	return reading{readings[0].metric, median(values)}
}

// firstEvent asks for a stream of one event, which ends at once, so that its connections are there for the next request.
func (r *rig) firstEvent(c *client.Client) error {
	s, err := c.Open(r.ctx, standin.Part{Events: 1}, requestBody)
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Rest()
}

// farEvents returns the median delay of events that come one by one.
func (r *rig) farEvents(c *client.Client) (float64, error) {
	s, err := c.Open(r.ctx, standin.Part{Events: 100 * r.size.far, Every: 5 * time.Millisecond, Text: 10}, requestBody)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	var delays []float64
	for range 100 * r.size.far {
		delay, err := s.Next()
		if err != nil {
			return 0, err
		}
		delays = append(delays, micros(delay))
	}
	return median(delays), s.Rest()
}
