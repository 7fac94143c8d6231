package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// baseline is what the ratios are to.
const baseline = "nginx"

// row is a metric with its values, per contender and round.
type row struct {
	metric
	values map[string]map[int]float64
}

// rows sorts samples into rows, in the order of the measures, whatever the order they were made in.
func rows(all []sample) []row {
	var rows []row
	all = slices.SortedStableFunc(slices.Values(all), func(a, b sample) int { return rank(a.Measure) - rank(b.Measure) })
	for _, s := range all {
		i := slices.IndexFunc(rows, func(r row) bool { return r.metric == s.Metric })
		if i < 0 {
			i = len(rows)
			rows = append(rows, row{s.Metric, map[string]map[int]float64{}})
		}
		if rows[i].values[s.Contender] == nil {
			rows[i].values[s.Contender] = map[int]float64{}
		}
		rows[i].values[s.Contender][s.Round] = s.Value
	}
	return rows
}

func rank(measure string) int {
	var streams int
	if _, err := fmt.Sscanf(measure, eventsName, &streams); err == nil {
		return streams
	}
	return maxStreams + 1 + slices.Index(measureNames(), measure)
}

// overDirect subtracts, round by round, what it takes without a proxy.
func (r row) overDirect() row {
	added := row{r.metric, map[string]map[int]float64{}}
	added.Name = "added " + r.Name
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
	values := sortedValues(r.values[contender])
	if len(values) == 0 {
		return "–"
	}
	text := format(quantile(values, 0.5))
	if len(values) > 1 {
		text += fmt.Sprintf(" (%s–%s)", format(values[0]), format(values[len(values)-1]))
	}
	if contender == baseline {
		return text
	}
	ratios := map[int]float64{}
	for round, v := range r.values[contender] {
		if base, ok := r.values[baseline][round]; ok && base > 0 {
			ratios[round] = v / base
		}
	}
	if len(ratios) > 0 {
		text += fmt.Sprintf(" ×%.2f", quantile(sortedValues(ratios), 0.5))
	}
	return text
}

// table prints the samples in Markdown, and what the delays are without a proxy.
func table(all []sample) string {
	var columns []string
	for _, name := range contenderNames() {
		if slices.ContainsFunc(all, func(s sample) bool { return s.Contender == name }) {
			columns = append(columns, name)
		}
	}
	var out, without strings.Builder
	fmt.Fprintf(&out, "| median (smallest–largest) ×ratio to %s | %s |\n|---%s|\n", baseline,
		strings.Join(columns, " | "), strings.Repeat("|--:", len(columns)))
	for _, r := range rows(all) {
		if r.OverDirect {
			values := sortedValues(r.values[direct.name])
			if len(values) > 0 {
				fmt.Fprintf(&without, "Without a proxy: %s %s %s.\n", r.Name, format(quantile(values, 0.5)), r.Unit)
			}
			r = r.overDirect()
		}
		fmt.Fprintf(&out, "| %s, %s |", r.Name, r.Unit)
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

func sortedValues(values map[int]float64) []float64 {
	var sorted []float64
	for _, v := range values {
		sorted = append(sorted, v)
	}
	slices.Sort(sorted)
	return sorted
}

// quantile returns the value below which the given share of the sorted values lies, interpolated between its neighbours.
func quantile(sorted []float64, share float64) float64 {
	at := share * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

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
