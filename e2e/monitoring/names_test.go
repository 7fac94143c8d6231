package monitoring

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metricsql"
	"gotest.tools/v3/assert"
)

// job is the label value that podmonitor.yaml sets. Every selector must have it, because other programs have metrics like
// process_start_time_seconds too.
const job = "oauth-proxy"

// targetLabels are what the PodMonitor adds to every series.
var targetLabels = []string{"job", "namespace", "pod", "container", "endpoint", "instance"}

// A running proxy shows every metric, label and label value that the rules, their test cases and the dashboard use.
func TestEverySelectorFindsSomething(t *testing.T) {
	c, shown := loaded(t), traffic(t)
	for _, alert := range c.alerts() {
		assert.Check(t, checkNames(alert.Expr.String(), shown), alert.Alert)
	}
	for _, p := range c.dashboard.Panels {
		for _, target := range p.Targets {
			assert.Check(t, checkNames(grafanaVariables.Replace(target.Expr)+legendAsGrouping(target.LegendFormat), shown), "panel %q", p.Title)
		}
	}
	cases, err := os.ReadFile("testdata/alerts.yaml")
	assert.NilError(t, err)
	for _, series := range regexp.MustCompile(`series: '((?:proxy|process|go)_.*?)'`).FindAllStringSubmatch(string(cases), -1) {
		assert.Check(t, checkNames(series[1], shown), "testdata/alerts.yaml")
	}
}

// legendAsGrouping adds the labels in a legend to the expression, so that they are checked like the others.
func legendAsGrouping(legend string) string {
	var names []string
	for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(legend, -1) {
		names = append(names, m[1])
	}
	return fmt.Sprintf(" or on (%s) vector(0)", strings.Join(names, ","))
}

// checkNames checks an expression's selectors and the labels that it groups by.
func checkNames(expr string, shown scrape) (problems error) {
	parsed, err := metricsql.Parse(expr)
	if err != nil {
		return fmt.Errorf("%s: %w", expr, err)
	}
	labels := map[string]bool{"le": true}
	for _, l := range targetLabels {
		labels[l] = true
	}
	var grouping []string
	metricsql.VisitAll(parsed, func(e metricsql.Expr) {
		switch e := e.(type) {
		case *metricsql.MetricExpr:
			for _, filters := range e.LabelFilterss {
				problems = errors.Join(problems, checkSelector(filters, shown))
				for label := range shown[filters[0].Value] {
					labels[label] = true
				}
			}
		case *metricsql.AggrFuncExpr:
			grouping = append(grouping, e.Modifier.Args...)
		case *metricsql.BinaryOpExpr:
			grouping = append(grouping, e.GroupModifier.Args...)
		}
	})
	for _, label := range grouping {
		if !labels[label] {
			problems = errors.Join(problems, fmt.Errorf("no series in it has a label %q: %s", label, expr))
		}
	}
	return problems
}

// checkSelector checks one selector, whose first filter is the metric's name.
func checkSelector(filters []metricsql.LabelFilter, shown scrape) (problems error) {
	metric := filters[0].Value
	series, ok := shown[metric]
	if !ok && metric != "up" {
		return fmt.Errorf("the proxy shows no metric %q", metric)
	}
	hasJob := false
	for _, f := range filters[1:] {
		hasJob = hasJob || f.Label == "job" && f.Value == job && !f.IsNegative && !f.IsRegexp
		if f.IsNegative || slices.Contains(targetLabels, f.Label) {
			continue
		}
		for _, value := range strings.Split(f.Value, "|") {
			pattern := regexp.MustCompile("^(?:" + value + ")$")
			if !slices.ContainsFunc(slices.Collect(maps.Keys(series[f.Label])), pattern.MatchString) {
				problems = errors.Join(problems, fmt.Errorf("%s has no %s=%q: the proxy shows %q", metric, f.Label, value, slices.Sorted(maps.Keys(series[f.Label]))))
			}
		}
	}
	if !hasJob {
		problems = errors.Join(problems, fmt.Errorf("the selector of %s needs job=%q, else it finds other programs' series", metric, job))
	}
	return problems
}
