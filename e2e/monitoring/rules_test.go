package monitoring

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/VictoriaMetrics/metricsql"
	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"gotest.tools/v3/assert"
	"sigs.k8s.io/yaml"
)

const runbookURL = "https://github.com/basher83/anthropic-oauth-proxy/blob/main/docs/runbook.md"

func (c component) alerts() (alerts []monitoringv1.Rule) {
	for _, group := range c.rule.Spec.Groups {
		alerts = append(alerts, group.Rules...)
	}
	return alerts
}

// Whoever is woken needs to know how bad it is, what it is, and what to do.
func TestAlertsAreComplete(t *testing.T) {
	for _, alert := range loaded(t).alerts() {
		assert.Check(t, checkAlert(alert))
	}
}

func checkAlert(r monitoringv1.Rule) error {
	if r.Alert == "" {
		return fmt.Errorf("rules.yaml: a rule without an alert; recording rules have no runbook, so there are none")
	}
	if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
		return fmt.Errorf("%s: severity must be critical, warning or info, not %q", r.Alert, r.Labels["severity"])
	}
	if r.For == nil || *r.For == "" || *r.For == "0s" {
		return fmt.Errorf("%s: without `for` a single scrape fires it", r.Alert)
	}
	if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
		return fmt.Errorf("%s: summary and description are what stands in the message", r.Alert)
	}
	// GitHub makes the anchor of a heading from its text, in lower case.
	if want := runbookURL + "#" + url.PathEscape(strings.ToLower(r.Alert)); r.Annotations["runbook_url"] != want {
		return fmt.Errorf("%s: runbook_url must be %s", r.Alert, want)
	}
	return nil
}

// Every number with more than four digits in a rule is a limit, and must be one that is deployed.
func TestRulesAgreeWithTheDeployedLimits(t *testing.T) {
	assert.NilError(t, checkRuleLimits(loaded(t)))
}

func checkRuleLimits(c component) error {
	deployed := map[int64]bool{c.limits.maxBodyBytes: true, c.limits.maxBufferedBytes: true, c.limits.memory: true}
	seen := map[int64]bool{}
	for _, alert := range c.alerts() {
		for _, digits := range regexp.MustCompile(`\b\d{4,}\b`).FindAllString(alert.Expr.String(), -1) {
			n, err := strconv.ParseInt(digits, 10, 64)
			if err != nil {
				return err
			}
			if !deployed[n] {
				return fmt.Errorf("%s: %d is neither max_body_bytes (%d) nor max_buffered_bytes (%d) of config.toml nor the memory limit of deployment.yaml (%d): make them agree",
					alert.Alert, n, c.limits.maxBodyBytes, c.limits.maxBufferedBytes, c.limits.memory)
			}
			seen[n] = true
		}
	}
	if len(seen) != len(deployed) {
		return fmt.Errorf("rules.yaml uses %d of the %d limits: an alert has lost its limit", len(seen), len(deployed))
	}
	return nil
}

// writeRules puts what promtool reads, the PrometheusRule's spec, in dir.
func writeRules(t *testing.T, spec monitoringv1.PrometheusRuleSpec, dir string) {
	t.Helper()
	text, err := yaml.Marshal(spec)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "rules.yaml"), text, 0o600))
}

func runPromtool(t *testing.T, dir string, args ...string) error {
	t.Helper()
	cmd := exec.Command(promtool(t), args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("promtool %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

func TestPromtoolAcceptsTheRules(t *testing.T) {
	dir := t.TempDir()
	writeRules(t, loaded(t).rule.Spec, dir)
	assert.NilError(t, runPromtool(t, dir, "check", "rules", "--lint-fatal", "rules.yaml"))
}

// cases is what these tests need to know of a promtool test file.
type cases struct {
	Files    []string   `json:"rule_files"`
	Interval string     `json:"evaluation_interval"`
	Tests    []scenario `json:"tests"`
}

type scenario struct {
	Name     string `json:"name"`
	Interval string `json:"interval"`
	Series   []any  `json:"input_series"`
	Tests    []struct {
		Alert string `json:"alertname"`
		At    string `json:"eval_time"`
		Fires []any  `json:"exp_alerts"`
	} `json:"alert_rule_test"`
}

func readCases(t *testing.T) (file cases) {
	t.Helper()
	text, err := os.ReadFile("testdata/alerts.yaml")
	assert.NilError(t, err)
	assert.NilError(t, yaml.UnmarshalStrict(text, &file))
	return file
}

// testdata/alerts.yaml says when each alert fires and when not.
func TestAlertsFireWhenTheyShould(t *testing.T) {
	assert.NilError(t, testAlerts(t, loaded(t).rule.Spec, ""))
}

// testAlerts has promtool play the scenarios, or those alone in which one alert is asked for.
func testAlerts(t *testing.T, spec monitoringv1.PrometheusRuleSpec, alert string) error {
	t.Helper()
	file := readCases(t)
	file.Tests = slices.DeleteFunc(file.Tests, func(s scenario) bool {
		for _, test := range s.Tests {
			if alert == "" || test.Alert == alert {
				return false
			}
		}
		return true
	})
	text, err := yaml.Marshal(file)
	assert.NilError(t, err)
	dir := t.TempDir()
	writeRules(t, spec, dir)
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "alerts.yaml"), text, 0o600))
	return runPromtool(t, dir, "test", "rules", "alerts.yaml")
}

// promtool says nothing of an alert that no case mentions, or of a case for an alert that is gone.
func TestEveryAlertHasCasesOfBothKinds(t *testing.T) {
	assert.NilError(t, checkCases(loaded(t), readCases(t)))
}

func checkCases(c component, file cases) error {
	fires, quiet, rollout := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, scenario := range file.Tests {
		for _, test := range scenario.Tests {
			switch {
			case len(test.Fires) > 0:
				fires[test.Alert] = true
			default:
				quiet[test.Alert] = true
				rollout[test.Alert] = rollout[test.Alert] || strings.Contains(scenario.Name, "rollout")
			}
		}
	}
	for _, alert := range c.alerts() {
		name := alert.Alert
		if !fires[name] || !quiet[name] || !rollout[name] {
			return fmt.Errorf("testdata/alerts.yaml: %s needs a case in which it fires, one in which it does not, and a quiet one in a rollout", name)
		}
		delete(fires, name)
		delete(quiet, name)
	}
	for name := range fires {
		return fmt.Errorf("testdata/alerts.yaml tests %s, which rules.yaml does not have", name)
	}
	for name := range quiet {
		return fmt.Errorf("testdata/alerts.yaml tests %s, which rules.yaml does not have", name)
	}
	return nil
}

// selector is one series selector of a query.
type selector struct {
	metric string
	labels []metricsql.LabelFilter // without the name
}

// query is what names_test.go needs to know of an expression.
type query struct {
	selectors []selector
	grouping  []string // the labels of by, without, on and ignoring
}

// parse reads an expression that promtool has accepted.
func parse(expr string) (query, error) {
	var q query
	parsed, err := metricsql.Parse(expr)
	if err != nil {
		return q, fmt.Errorf("%s: %w", expr, err)
	}
	metricsql.VisitAll(parsed, func(e metricsql.Expr) {
		switch e := e.(type) {
		case *metricsql.MetricExpr:
			for _, filters := range e.LabelFilterss {
				s := selector{}
				for _, f := range filters {
					if f.Label == "__name__" {
						s.metric = f.Value
						continue
					}
					s.labels = append(s.labels, f)
				}
				q.selectors = append(q.selectors, s)
			}
		case *metricsql.AggrFuncExpr:
			q.grouping = append(q.grouping, e.Modifier.Args...)
		case *metricsql.BinaryOpExpr:
			q.grouping = append(q.grouping, e.GroupModifier.Args...)
		}
	})
	return q, nil
}
