//go:build linux

package main

import (
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

func TestQuantile(t *testing.T) {
	for _, test := range []struct {
		values      []float64
		share, want float64
	}{
		{[]float64{3}, 0.5, 3},
		{[]float64{9, 2, 1}, 0.5, 2},
		{[]float64{1, 4, 2, 9}, 0.5, 3},
		{[]float64{0, 10, 20, 30, 40}, 0.9, 36},
		{[]float64{1, 2}, 1, 2},
	} {
		assert.Equal(t, quantile(test.values, test.share), test.want)
	}
}

// A ratio is the median of the rounds' ratios, not the ratio of the medians; an added delay is a difference within a
// round.
func TestTable(t *testing.T) {
	cpu, delay, far := metric{name: "CPU per request", unit: "µs"}, metric{"delay", "µs", true}, metric{name: "far", unit: "ms"}
	var all []sample
	for round, v := range [][5]float64{{30, 10, 150, 110, 100}, {10, 20, 260, 230, 200}, {20, 10, 380, 330, 300}} {
		for i, c := range []string{"ours", "nginx"} {
			all = append(all, sample{c, round, reading{cpu, v[i]}}, sample{c, round, reading{delay, v[i+2]}}, sample{c, round, reading{far, 80}})
		}
		all = append(all, sample{direct.name, round, reading{delay, v[4]}}, sample{direct.name, round, reading{far, 79}})
	}
	assert.Equal(t, table(all), `| median (smallest–largest) ×ratio to nginx | ours | nginx | direct |
|---|--:|--:|--:|
| CPU per request, µs | 20.0 (10.0–30.0) ×2.00 | 10.0 (10.0–20.0) | – |
| added delay, µs | 60.0 (50.0–80.0) ×2.67 | 30.0 (10.0–30.0) | – |
| far, ms | 80.0 (80.0–80.0) ×1.00 | 80.0 (80.0–80.0) | 79.0 (79.0–79.0) |

Without a proxy: delay 200 µs.
`)
}

func TestRender(t *testing.T) {
	p := place{Dir: "/the-folder", Addr: "127.0.0.1:1234", Upstream: "127.0.0.1:5678", CA: "/the-ca", User: "me"}
	for _, c := range contenders {
		if c.config == "" {
			continue
		}
		text, err := render(c.config, p)
		assert.NilError(t, err)
		for _, want := range []string{p.Addr, p.Upstream, "anthropic-beta", "oauth-2025-04-20"} {
			assert.Check(t, cmp.Contains(text, want), c.config)
		}
		if c.config != "ours.toml" { // which trusts the environment's
			assert.Check(t, strings.Contains(text, p.CA), c.config)
		}
	}
}

func TestFlags(t *testing.T) {
	_, err := choose("only", "ours,apache", contenders)
	assert.ErrorContains(t, err, `no "apache", only ours,nginx,haproxy,caddy,ReverseProxy`)
	chosen, err := choose("measure", "distance", measures(nil))
	assert.NilError(t, err)
	assert.Equal(t, len(chosen), len(distances))
	for _, list := range []string{"0", "4001", "ten", ""} {
		_, err := parseCounts(list)
		assert.Check(t, err != nil, list)
	}
}
