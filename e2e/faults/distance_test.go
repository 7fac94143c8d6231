package faults

import (
	"testing"
	"time"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/client"
	"github.com/basher83/anthropic-oauth-proxy/e2e/distance"
	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// newStandin returns an upstream that behaves well.
func newStandin(t *testing.T, o standin.Options) (*standin.Server, upstream) {
	t.Helper()
	s, err := standin.Start(o)
	assert.NilError(t, err)
	t.Cleanup(func() { s.Close() })
	return s, upstream{url: s.URL, caFile: s.CAFile, close: func() { s.Close() }}
}

// Over a long path, answers must not wait for flow-control windows: with windows of 64 KiB, 4 MiB would take 64 round trips (contract row
// 3.1). The limits are generous, because the machine may be busy.
func TestDistance(t *testing.T) {
	t.Parallel()
	const roundTrip = 200 * time.Millisecond
	s, up := newStandin(t, standin.Options{})
	relay, err := distance.NewRelay(s.Addr(), roundTrip)
	assert.NilError(t, err)
	up.url = "https://" + relay.Addr()
	up.close = func() { relay.Close(); s.Close() }
	w := newWorld(t, up)
	c := client.New(w.p.URL)
	defer c.Close()
	assert.NilError(t, c.Ask(t.Context(), standin.Part{}, []byte("{}"))) // so that the connection is open, as it usually is
	for size, most := range map[int64]time.Duration{300_000: 4, 4 << 20: 24} {
		begun := time.Now()
		assert.NilError(t, c.Ask(t.Context(), standin.Part{Size: size}, []byte("{}")))
		took := time.Since(begun)
		assert.Check(t, took < most*roundTrip, "%d bytes took %.1f round trips", size, float64(took)/float64(roundTrip))
	}
	w.served(3)
}

// served adds n POSTs that were answered with 200 to what the counters must show.
func (w *world) served(n float64) {
	w.expect(n, `proxy_requests_total{method="POST",status="200"}`)
	w.expect(n, `proxy_streams_total{outcome="complete"}`)
}
