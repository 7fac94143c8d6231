package monitoring

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// job is the value that podmonitor.yaml gives the label, and that every selector has: other programs have a
// process_start_time_seconds too.
const job = "oauth-proxy"

// targetLabels are what the PodMonitor adds to every series; with `up` they are what does not come from the proxy.
var targetLabels = []string{"job", "namespace", "pod", "container", "endpoint", "instance"}

// Every metric, label and label value that a rule or the dashboard asks for is one that a running proxy shows.
func TestEverySelectorFindsSomething(t *testing.T) {
	shown, _ := traffic(t)
	c := loaded(t)
	for _, alert := range c.alerts() {
		assert.Check(t, checkNames(alert.Expr.String(), shown), "alert %s", alert.Alert)
	}
	d := decodedDashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			expr := grafanaVariables.Replace(target.Expr)
			assert.Check(t, checkNames(expr, shown), "panel %q", p.Title)
			assert.Check(t, checkLegend(target.LegendFormat, expr), "panel %q", p.Title)
		}
	}
}

func checkNames(expr string, shown scrape) error {
	q, err := parse(expr)
	if err != nil {
		return err
	}
	labels := map[string]bool{"le": true} // a histogram's; checked by the name of its buckets
	for _, l := range targetLabels {
		labels[l] = true
	}
	for _, s := range q.selectors {
		series, ok := shown[s.metric]
		if !ok && s.metric != "up" {
			return fmt.Errorf("the proxy shows no metric %q; correct %s", s.metric, expr)
		}
		for label := range series {
			labels[label] = true
		}
		hasJob := false
		for _, f := range s.labels {
			if f.Label == "job" && f.Value == job && !f.IsNegative && !f.IsRegexp {
				hasJob = true
				continue
			}
			if slices.Contains(targetLabels, f.Label) {
				continue
			}
			for _, value := range alternatives(f.Value, f.IsRegexp) {
				if !series[f.Label][value] {
					return fmt.Errorf("%s has no %s=%q: the proxy shows %v; correct %s", s.metric, f.Label, value, slices.Sorted(maps.Keys(series[f.Label])), expr)
				}
			}
		}
		if !hasJob {
			return fmt.Errorf("the selector of %s needs job=%q, else it finds other programs' series: %s", s.metric, job, expr)
		}
	}
	for _, label := range q.grouping {
		if !labels[label] {
			return fmt.Errorf("no series has a label %q to group by; correct %s", label, expr)
		}
	}
	return nil
}

// alternatives are the values of a|b|c; any other regular expression would have to be listed here first.
func alternatives(value string, isRegexp bool) []string {
	if !isRegexp {
		return []string{value}
	}
	return strings.Split(value, "|")
}

// checkLegend: a legend can show only labels that the query has kept.
func checkLegend(legend, expr string) error {
	q, err := parse(expr)
	if err != nil {
		return err
	}
	for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(legend, -1) {
		if !slices.Contains(q.grouping, m[1]) {
			return fmt.Errorf("the legend %q shows the label %q, which %s does not keep", legend, m[1], expr)
		}
	}
	return nil
}

// What the proxy measures and nobody looks at is either a gap in the dashboard or a metric too many.
func TestEveryMetricOfOursIsOnTheDashboard(t *testing.T) {
	shown, _ := traffic(t)
	assert.NilError(t, checkCoverage(decodedDashboard(t).queries(), shown))
}

func checkCoverage(queries []string, shown scrape) error {
	used := map[string]bool{}
	for _, expr := range queries {
		q, err := parse(expr)
		if err != nil {
			return err
		}
		for _, s := range q.selectors {
			used[family(s.metric)] = true
		}
	}
	for name := range shown {
		if strings.HasPrefix(name, "proxy_") && !used[family(name)] {
			return fmt.Errorf("no panel shows %s: add one to dashboard.json", family(name))
		}
	}
	return nil
}

// family is a metric's name as its documentation has it: a histogram's without the suffix of its series.
func family(name string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return name
}
