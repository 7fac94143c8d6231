//go:build linux

package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// baseline is what the ratios are to.
const baseline = "nginx"

// sample is a reading, and where it comes from.
type sample struct {
	contender string
	round     int
	reading
}

// row is a metric with its values, per contender and round.
type row struct {
	metric
	values map[string]map[int]float64
}

// rows sorts samples into rows, in the order in which they were first seen.
func rows(all []sample) []row {
	var rows []row
	for _, s := range all {
		i := slices.IndexFunc(rows, func(r row) bool { return r.metric == s.metric })
		if i < 0 {
			i = len(rows)
			rows = append(rows, row{s.metric, map[string]map[int]float64{}})
		}
		if rows[i].values[s.contender] == nil {
			rows[i].values[s.contender] = map[int]float64{}
		}
		rows[i].values[s.contender][s.round] = s.value
	}
	return rows
}

// added subtracts, round by round, what it takes without a proxy.
func (r row) added() row {
	added := row{r.metric, map[string]map[int]float64{}}
	added.name = "added " + r.name
	for contender, values := range r.values {
		if contender == direct.name {
			continue
		}
		added.values[contender] = map[int]float64{}
		for round, v := range values {
			if without, ok := r.values[direct.name][round]; ok {
				added.values[contender][round] = v - without
			}
		}
	}
	return added
}

// cell is median, smallest and largest value, and the ratio to the baseline.
func (r row) cell(contender string) string {
	values := slices.Sorted(maps.Values(r.values[contender]))
	if len(values) == 0 {
		return "–"
	}
	text := format(median(values))
	if len(values) > 1 {
		text += fmt.Sprintf(" (%s–%s)", format(values[0]), format(values[len(values)-1]))
	}
	if contender == baseline || contender == direct.name {
		return text
	}
	ratios := map[int]float64{}
	for round, v := range r.values[contender] {
		if base, ok := r.values[baseline][round]; ok && base > 0 {
			ratios[round] = v / base
		}
	}
	if len(ratios) > 0 {
		text += fmt.Sprintf(" ×%.2f", median(slices.Collect(maps.Values(ratios))))
	}
	return text
}

// table prints the samples in Markdown, and what the delays are without a proxy.
func table(all []sample) string {
	var columns []string
	for _, c := range append(contenders[:len(contenders):len(contenders)], direct) {
		measured := func(s sample) bool { return s.contender == c.name && (c.name != direct.name || !s.overDirect) }
		if slices.ContainsFunc(all, measured) {
			columns = append(columns, c.name)
		}
	}
	var out, without strings.Builder
	fmt.Fprintf(&out, "| median (smallest–largest) ×ratio to %s | %s |\n|---%s|\n", baseline,
		strings.Join(columns, " | "), strings.Repeat("|--:", len(columns)))
	for _, r := range rows(all) {
		if r.overDirect {
			values := slices.Collect(maps.Values(r.values[direct.name]))
			if len(values) > 0 {
				fmt.Fprintf(&without, "Without a proxy: %s %s %s.\n", r.name, format(median(values)), r.unit)
			}
			r = r.added()
		}
		fmt.Fprintf(&out, "| %s, %s |", r.name, r.unit)
		for _, name := range columns {
			fmt.Fprintf(&out, " %s |", r.cell(name))
		}
		out.WriteByte('\n')
	}
	if without.Len() > 0 {
		out.WriteByte('\n')
	}
	return out.String() + without.String()
}

// quantile returns the value below which the given share of the values lies, interpolated between its neighbours. It sorts them.
func quantile(sorted []float64, share float64) float64 {
	slices.Sort(sorted)
	at := share * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// format keeps three digits.
func format(v float64) string {
	switch digits := math.Abs(v); {
	case digits < 10:
		return fmt.Sprintf("%.2f", v)
	case digits < 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}
