//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// measureDistance measures what a person at a distance from the API waits for. Bytes are late, but the path is as broad as the
// machine: what takes longer than the round trips it needs is held up by a window.
func measureDistance(r *rig, c *client.Client, _ *process) (readings []reading, err error) {
	ask := func(p standin.Part, body int) func() error {
		return func() error { return c.Ask(r.ctx, p, uploadBody()[:body]) }
	}
	first := func() error { return r.firstEvent(c) }
	for i, kind := range []struct {
		what string
		do   func() error
	}{
		{"first event, cold connection", first}, // it comes first, and only once
		{"first event, warm connection", first},
		{"answer of 300 KB", ask(standin.Part{Size: 300_000}, 2048)},
		{"download of 4 MiB", ask(standin.Part{Size: 4 << 20}, 2048)},
		{"upload of 9 MB", ask(standin.Part{}, 9_000_000)},
		{"upload of 30 MB", ask(standin.Part{}, 30_000_000)},
	} {
		var took []float64
		for n := 0; n < r.size.far && (i > 0 || n == 0); n++ {
			begun := time.Now()
			if err := kind.do(); err != nil {
				return nil, fmt.Errorf("%s: %w", kind.what, err)
			}
			took = append(took, micros(time.Since(begun))/1000)
		}
		readings = append(readings, reading{metric{name: fmt.Sprintf("%s, %v away", kind.what, r.far), unit: "ms"}, median(took)})
	}
	delay, err := r.farEvents(c)
	return append(readings, reading{metric{fmt.Sprintf("delay of an event, %v away, p50", r.far), "µs", true}, delay}), err
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
		_, delay, err := s.Next()
		if err != nil {
			return 0, err
		}
		delays = append(delays, micros(delay))
	}
	return median(delays), s.Rest()
}
