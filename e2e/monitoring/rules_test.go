package monitoring

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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

// An alert must say how severe it is, what happened, and where to read what to do.
func TestAlertsAreComplete(t *testing.T) {
	for _, r := range loaded(t).alerts() {
		severity := r.Labels["severity"]
		assert.Check(t, slices.Contains([]string{"critical", "warning", "info"}, severity), "%s: severity must be critical, warning or info, not %q", r.Alert, severity)
		assert.Check(t, r.For != nil && *r.For != "" && *r.For != "0s", "%s: without `for` a single scrape fires it", r.Alert)
		// GitHub makes the anchor of a heading from its text, in lower case.
		want := runbookURL + "#" + strings.ToLower(r.Alert)
		assert.Check(t, r.Annotations["summary"] != "" && r.Annotations["runbook_url"] == want, "%s: needs a summary and the runbook_url %s", r.Alert, want)
	}
}

// promtoolRuns runs promtool in a folder with the rules in rules.yaml and the cases in alerts.yaml. For promtool, the rules are the
// spec of the PrometheusRule. Without promtool the test is skipped. In CI, which must have every tool, it fails.
func promtoolRuns(t *testing.T, spec monitoringv1.PrometheusRuleSpec, cases string, args ...string) error {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		const missing = "promtool is not on the PATH: install Debian's package prometheus, or nixpkgs' prometheus.cli"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	dir := t.TempDir()
	text, err := yaml.Marshal(spec)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "rules.yaml"), text, 0o600))
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "alerts.yaml"), []byte(cases), 0o600))
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("promtool %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

func TestPromtoolAcceptsTheRules(t *testing.T) {
	assert.NilError(t, promtoolRuns(t, loaded(t).rule.Spec, "", "check", "rules", "--lint-fatal", "rules.yaml"))
}

// testdata/alerts.yaml lists cases in which each alert fires or does not fire.
func TestAlertsFireWhenTheyShould(t *testing.T) {
	c := loaded(t)
	cases, err := os.ReadFile("testdata/alerts.yaml")
	assert.NilError(t, err)
	assert.NilError(t, promtoolRuns(t, c.rule.Spec, string(cases), "test", "rules", "alerts.yaml"))
	for _, r := range c.alerts() {
		assert.Check(t, strings.Contains(string(cases), `alertname="`+r.Alert+`"`), "testdata/alerts.yaml has no case in which %s fires", r.Alert)
	}
}
