package main

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestQuantile(t *testing.T) {
	for _, test := range []struct {
		values      []float64
		share, want float64
	}{
		{[]float64{3}, 0.5, 3},
		{[]float64{1, 2, 9}, 0.5, 2},
		{[]float64{1, 2, 4, 9}, 0.5, 3},
		{[]float64{0, 10, 20, 30, 40}, 0.9, 36},
		{[]float64{1, 2}, 1, 2},
	} {
		if got := quantile(test.values, test.share); got != test.want {
			t.Errorf("quantile %v of %v is %v, not %v", test.share, test.values, got, test.want)
		}
	}
}

// A ratio is the median of the rounds' ratios, not the ratio of the medians; an added delay is a difference within a
// round.
func TestTable(t *testing.T) {
	cpu, delay := metric{Name: "CPU per request", Unit: "µs"}, metric{"delay", "µs", true}
	s := &samples{}
	for round, v := range [][5]float64{{30, 10, 150, 110, 100}, {10, 20, 260, 230, 200}, {20, 10, 380, 330, 300}} {
		for i, c := range []string{"ours", "nginx"} {
			if err := errors.Join(
				s.add("small", c, round, []reading{{cpu, v[i]}}),
				s.add("events on 100 streams", c, round, []reading{{delay, v[i+2]}}),
			); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.add("events on 100 streams", direct.name, round, []reading{{delay, v[4]}}); err != nil {
			t.Fatal(err)
		}
	}
	const want = `| median (smallest–largest) ×ratio to nginx | ours | nginx |
|---|--:|--:|
| added delay, µs | 60.0 (50.0–80.0) ×2.67 | 30.0 (10.0–30.0) |
| CPU per request, µs | 20.0 (10.0–30.0) ×2.00 | 10.0 (10.0–20.0) |

Without a proxy: delay 200 µs.
`
	if got := table(s.all); got != want {
		t.Errorf("table\n%s\nis not\n%s", got, want)
	}
}

// A table can be made in several runs: the second finds the first one's samples, and counts its rounds on.
func TestSamplesFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "samples")
	first, err := loadSamples(name)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		if err := first.add("open", "ours", round, []reading{{metric{"CPU", "µs", true}, 1.5}}); err != nil {
			t.Fatal(err)
		}
	}
	second, err := loadSamples(name)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(second.all, first.all) {
		t.Errorf("read %v, wrote %v", second.all, first.all)
	}
	if open, small := second.nextRound("open"), second.nextRound("small"); open != 2 || small != 0 {
		t.Errorf("goes on with rounds %d and %d, not 2 and 0", open, small)
	}
}

func TestRender(t *testing.T) {
	p := place{Dir: "/the-folder", Port: 1234, UpstreamPort: 5678, CA: "/the-ca", User: "me"}
	for _, c := range contenders {
		if c.config == "" {
			continue
		}
		text, err := render(c.config, p)
		if err != nil {
			t.Error(err)
		}
		for _, want := range []string{"127.0.0.1", ":1234", ":5678", "anthropic-beta", "oauth-2025-04-20"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s does not contain %q", c.config, want)
			}
		}
	}
}
