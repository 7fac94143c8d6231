package bench

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// each runs a benchmark once for each contender, at the given distance from the stand-in.
func each(b *testing.B, what string, distance time.Duration, f func(r *rig)) {
	eachBefore(b, standin.Options{}, what, distance, f)
}

// eachBefore is each with a stand-in of its own kind.
func eachBefore(b *testing.B, o standin.Options, what string, distance time.Duration, f func(r *rig)) {
	for _, c := range contenders {
		if distance > 0 || c.name != direct {
			b.Run(what+"/proxy="+c.name, func(b *testing.B) { f(newRig(b, c, distance, o)) })
		}
	}
}

// BenchmarkNear measures what a proxy costs: the stand-in is on the same machine.
func BenchmarkNear(b *testing.B) {
	for _, n := range sizes.streams {
		each(b, fmt.Sprintf("event,%d-streams", n), 0, func(r *rig) { measureEvents(r, n) })
	}
	each(b, "open-a-stream", 0, measureOpen)
	each(b, "small-request", 0, func(r *rig) {
		r.ask(sizes.small / 10)
		before := r.cpu()
		r.ask(sizes.small)
		r.reportEach(float64(r.cpu()-before), sizes.small, "cpu-ns/op")
	})
	eachBefore(b, standin.Options{HTTP1: true}, "4-MiB-of-short-lines,HTTP1", 0, func(r *rig) {
		r.ask(sizes.small / 10)
		r.timed(sizes.far, func(r *rig) error { return r.client.Ask(r.Context(), standin.Part{Size: 4 << 20}, question) })
	})
	each(b, "start-until-ready", 0, func(r *rig) { r.ReportMetric(float64(r.took), "ns/op") })
	each(b, fmt.Sprintf("%d-uploads-of-10-MiB", sizes.uploads), 0, measureUploads)
}

// measureEvents measures the CPU time per event. Events are sent one at a time, on each of n streams in turn.
func measureEvents(r *rig, n int) {
	streams := r.open(n, 1)
	for i := range sizes.events / 10 { // to warm up
		r.up.Tick(i % n)
		_, _, err := streams[i%n].Next()
		assert.NilError(r, err)
	}
	before := r.cpu()
	for i := range sizes.events {
		r.up.Tick(i % n)
		_, _, err := streams[i%n].Next()
		assert.NilError(r, err)
	}
	r.reportEach(float64(r.cpu()-before), sizes.events, "cpu-ns/op")
}

// measureOpen measures the CPU time to open a stream on a new connection, up to its first event. It also measures the memory of a
// stream that has been silent for a while. All streams stay open, so a proxy that speaks HTTP/1.1 to the upstream connects for each.
func measureOpen(r *rig) {
	r.ask(sizes.small / 10)
	r.open(sizes.warmed, 8)
	cpu, memory := r.cpu(), r.memory()
	r.open(sizes.opened, 8)
	r.reportEach(float64(r.cpu()-cpu), sizes.opened, "cpu-ns/op")
	<-time.After(sizes.silence)
	r.reportEach(float64(r.memory()-memory), sizes.opened, "idle-B/op")
}

// measureUploads measures a proxy's peak memory while many large requests come at once. The upstream reads 160 MiB a second, which is
// slower than the clients send. If this process is root, socket buffers are included.
func measureUploads(r *rig) {
	r.ask(sizes.small / 10)
	uploaded := make(chan error, 1)
	go func() {
		var clients errgroup.Group
		for range sizes.uploads {
			clients.Go(func() error { return r.client.Ask(r.Context(), standin.Part{Rate: 160 << 20}, upload(10<<20)) })
		}
		uploaded <- clients.Wait()
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	peak, withSockets := int64(0), int64(0)
	for running := true; running; {
		select {
		case err := <-uploaded:
			assert.NilError(r, err)
			running = false
		case <-tick.C:
		}
		memory := r.memory()
		peak = max(peak, memory)
		if r.group != nil {
			_, sockets := r.group.Used()
			withSockets = max(withSockets, memory+sockets)
		}
	}
	r.ReportMetric(float64(peak), "peak-B")
	if r.group != nil {
		r.ReportMetric(float64(withSockets), "peak-with-sockets-B")
	}
}

// uploaded is the body of large requests. The bare ReverseProxy runs from this same binary but never allocates it.
var uploaded []byte

func upload(size int) []byte {
	if uploaded == nil {
		uploaded = make([]byte, 30_000_000)
	}
	return uploaded[:size]
}

// A person far from the API waits for round trips: 20 ms to the next city, 80 ms across an ocean. The path has the full bandwidth of
// the machine. So whatever takes longer than its round trips waits for a flow-control window.
func BenchmarkFar20ms(b *testing.B) { far(b, 20*time.Millisecond) }
func BenchmarkFar80ms(b *testing.B) { far(b, 80*time.Millisecond) }

func far(b *testing.B, distance time.Duration) {
	first := func(r *rig) error {
		s, err := r.client.Open(r.Context(), standin.Part{Events: 1}, question)
		if err != nil {
			return err
		}
		defer s.Close()
		return s.Rest()
	}
	ask := func(p standin.Part, body []byte) func(r *rig) error {
		return func(r *rig) error { return r.client.Ask(r.Context(), p, body) }
	}
	each(b, "first-event,cold", distance, func(r *rig) { r.timed(1, first) })
	for _, kind := range []struct {
		what string
		do   func(r *rig) error
	}{
		{"first-event,warm", first},
		{"answer-of-300-KB", ask(standin.Part{Size: 300_000}, question)},
		{"download-of-4-MiB", ask(standin.Part{Size: 4 << 20}, question)},
		{"upload-of-9-MB", ask(standin.Part{}, upload(9_000_000))},
		{"upload-of-30-MB", ask(standin.Part{}, upload(30_000_000))},
	} {
		each(b, kind.what, distance, func(r *rig) {
			assert.NilError(r, first(r)) // from here on there are open connections
			r.timed(sizes.far, kind.do)
		})
	}
}

// timed calls a function n times and reports how long one call took.
func (r *rig) timed(n int, do func(r *rig) error) {
	began := time.Now()
	for range n {
		assert.NilError(r, do(r))
	}
	r.reportEach(float64(time.Since(began)), n, "ns/op")
}
