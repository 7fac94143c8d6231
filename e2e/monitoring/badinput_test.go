package monitoring

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// A fault is one thing that somebody might break, and a part of the sentence that must then be read.
type fault struct {
	file, old, new string
	want           string
}

func (f fault) name() string { return f.file + ": " + f.old + " → " + f.new }

// broken is a copy of k8s/ with the fault in it.
func (f fault) broken(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "k8s")
	assert.NilError(t, os.CopyFS(dir, os.DirFS(filepath.Join(repository, "k8s"))))
	path := filepath.Join(dir, f.file)
	text, err := os.ReadFile(path)
	assert.NilError(t, err)
	assert.NilError(t, os.WriteFile(path, []byte(f.apply(t, string(text))), 0o600))
	return dir
}

func (f fault) apply(t *testing.T, text string) string {
	t.Helper()
	assert.Assert(t, strings.Contains(text, f.old), "%q is no longer there to be broken: mend this case", f.old)
	return strings.Replace(text, f.old, f.new, 1)
}

// The manifests' checks see each of these.
func TestBrokenManifestsAreFoundOut(t *testing.T) {
	shown, _ := traffic(t)
	for _, f := range []fault{
		{"monitoring/podmonitor.yaml", "interval: 30s", "intervall: 30s", `unknown field`},
		{"monitoring/podmonitor.yaml", "name: oauth-proxy\n  podMetrics", "name: proxy\n  podMetrics", "no pod would be scraped"},
		{"monitoring/podmonitor.yaml", "port: http", "port: metrics", "the container does not have"},
		{"monitoring/podmonitor.yaml", "jobLabel: app.kubernetes.io/name", "jobLabel: app", `job="oauth-proxy"`},
		{"kustomization.yaml", "namespace: anthropic-oauth-proxy\n", "", "write namespace: anthropic-oauth-proxy"},
		{"monitoring/rules.yaml", "for: 3m", "for: 0s", "a single scrape fires it"},
		{"monitoring/rules.yaml", "severity: critical", "severity: page", "severity must be"},
		{"monitoring/rules.yaml", "#oauthproxyretries", "#retries", "runbook_url must be"},
		{"monitoring/rules.yaml", "0.9 * 268435456", "0.9 * 536870912", "make them agree"},
		{"monitoring/rules.yaml", "> 67108864 - 10485760", "> 67108864", "an alert has lost its limit"},
		{"monitoring/rules.yaml", "proxy_requests_queued{", "proxy_queue_length{", `no metric "proxy_queue_length"`},
		{"monitoring/rules.yaml", `error_type="timeout"`, `error_type="timed_out"`, `no error_type="timed_out"`},
		{"monitoring/rules.yaml", "idle_timeout|upstream_reset", "idle|upstream_reset", `no outcome="idle"`},
		{"monitoring/rules.yaml", `proxy_requests_queued{job="oauth-proxy"}`, `proxy_requests_queued`, `needs job="oauth-proxy"`},
		{"monitoring/rules.yaml", "max by (window)", "max by (period)", `no series has a label "period"`},
		{"monitoring/rules.yaml", "alert: OAuthProxyDown", "alert: OAuthProxyGone", "OAuthProxyGone needs a case in which it fires"},
		{"config.toml", "max_connections = 1000", "max_connections = 500", "500 is deployed"},
		{"config.toml", "max_buffered_bytes = 67108864", "max_buffered_bytes = 33554432", "make them agree"},
		{"monitoring/dashboard.json", `"w": 4,`, `"w": 5,`, "overlap"},
		{"monitoring/dashboard.json", `"id": 2,`, `"id": 1,`, "the same id 1"},
		{"monitoring/dashboard.json", `"refId"`, `"refID_"`, "unknown field"},
		{"monitoring/dashboard.json", `"uid": "${datasource}"`, `"uid": "abc"`, "a fixed uid exists in one Grafana only"},
		{"monitoring/dashboard.json", "sum by (status)", "sum by (code)", `no series has a label "code"`},
		{"monitoring/dashboard.json", `"{{error_type}}"`, `"{{type}}"`, `"type"`},
		{"monitoring/dashboard.json", "proxy_upstream_retries_total", "proxy_requests_total", "no panel shows proxy_upstream_retries_total"},
		{"monitoring/dashboard.json", "histogram_quantile(0.5,", "histogram_quantil(0.5,", "unknown function"},
	} {
		t.Run(f.name(), func(t *testing.T) {
			assert.ErrorContains(t, checkAll(t, f.broken(t), shown), f.want)
		})
	}
}

// checkAll runs the checks of the manifests one after the other and returns the first complaint.
func checkAll(t *testing.T, dir string, shown scrape) error {
	t.Helper()
	c, err := load(t, dir)
	if err != nil {
		return err
	}
	d, err := decodeDashboard(c.dashboard.Data["oauth-proxy.json"])
	if err != nil {
		return err
	}
	for _, check := range []func() error{
		func() error { return checkMonitor(c) },
		func() error { return checkCases(c, readCases(t)) },
		func() error { return checkRuleLimits(c) },
		func() error { return checkLayout(d) },
		func() error { return checkDashboardLimits(d, c.limits) },
		func() error { return checkQueries(t, d) },
		func() error { return checkCoverage(d.queries(), shown) },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	for _, alert := range c.alerts() {
		if err := checkAlert(alert); err != nil {
			return err
		}
		if err := checkNames(alert.Expr.String(), shown); err != nil {
			return err
		}
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			expr := grafanaVariables.Replace(target.Expr)
			if err := checkNames(expr, shown); err != nil {
				return err
			}
			if err := checkLegend(target.LegendFormat, expr); err != nil {
				return err
			}
		}
	}
	return nil
}

// Each alert, made deaf or made nervous, fails one of promtool's cases.
func TestWrongThresholdsAreFoundOut(t *testing.T) {
	for _, f := range []fault{
		{old: `up{job="oauth-proxy"} == 1) or vector(0)) == 0`, new: `up{job="oauth-proxy"} == 1) or vector(0)) < 0`, want: "OAuthProxyDown"},
		{old: `(count(up{job="oauth-proxy"} == 1) or vector(0)) == 0`, new: `up{job="oauth-proxy"} == 0`, want: "OAuthProxyDown"}, // fires for a pod that drains
		{old: "> 10\n", new: "> 0\n", want: "OAuthProxyRestarted"},                                                                // a clock that was set
		{old: "> 10\n", new: "> 1000\n", want: "OAuthProxyRestarted"},
		{old: "> 2.5\n            and", new: "> 0\n            or", want: "OAuthProxyUpstreamUnreachable"},
		{old: "> 0.1 *", new: "> 0.001 *", want: "OAuthProxyUpstreamUnreachable"},
		{old: `sum(increase(proxy_upstream_errors_total{job="oauth-proxy",error_type="timeout"}[30m])) > 1.5`,
			new: `sum(proxy_upstream_errors_total{job="oauth-proxy",error_type="timeout"}) > 1.5`, want: "OAuthProxyUpstreamSilent"}, // fires for ever
		{old: "[30m])) > 1.5", new: "[30m])) > 0.5", want: "OAuthProxyUpstreamSilent"},
		{old: "[1h])) > 2.5", new: "[1h])) > 5", want: "OAuthProxyRetries"},
		{old: "[1h])) > 2.5", new: "[1h])) > 1.5", want: "OAuthProxyRetries"},
		{old: "> 0.05 *", new: "> 0.5 *", want: "OAuthProxyStreamsCut"},
		{old: `outcome=~"idle_timeout|upstream_reset"}[15m])) > 2.5`, new: `outcome=~"client_gone|upstream_reset"}[15m])) > 2.5`, want: "OAuthProxyStreamsCut"},
		{old: "> 0.5 *", new: "> 0.3 *", want: "OAuthProxyRejected"},
		{old: "> 9.5", new: "> 5", want: "OAuthProxyRejected"},
		{old: `status=~"400|401|403"}[15m])) > 9.5`, new: `status=~"400|403"}[15m])) > 9.5`, want: "OAuthProxyRejected"},
		{old: `proxy_requests_queued{job="oauth-proxy"}) > 0`, new: `proxy_requests_queued{job="oauth-proxy"}) > 3`, want: "OAuthProxyQueueing"},
		{old: "> 67108864 - 10485760", new: "> 67108864", want: "OAuthProxyBodyBudget"},
		{old: "> 67108864 - 10485760", new: ">= 67108864 - 10485760", want: "OAuthProxyBodyBudget"},
		{old: "0.9 * 268435456", new: "0.8 * 268435456", want: "OAuthProxyMemory"},
		{old: "0.9 * 268435456", new: "0.99 * 268435456", want: "OAuthProxyMemory"},
		{old: `              and proxy_ratelimit_reset_timestamp_seconds{job="oauth-proxy"} > time()` + "\n", new: "", want: "OAuthProxyUsageWindow"}, // stale
		{old: ") > 0.9\n", new: ") > 0.8\n", want: "OAuthProxyUsageWindow"},
		{old: ") > 0.9\n", new: ") > 0.96\n", want: "OAuthProxyUsageWindow"},
	} {
		f.file = "monitoring/rules.yaml"
		t.Run(f.want+": "+f.new, func(t *testing.T) {
			c, err := load(t, f.broken(t))
			assert.NilError(t, err)
			assert.ErrorContains(t, testAlerts(t, c.rule.Spec, f.want), "alertname: "+f.want)
		})
	}
}

// The runbook's checks see each of these.
func TestBrokenRunbookIsFoundOut(t *testing.T) {
	shown, _ := traffic(t)
	f, c := gatherFacts(t), loaded(t)
	justfile, err := os.ReadFile(filepath.Join(repository, "justfile"))
	assert.NilError(t, err)
	for _, broken := range []fault{
		{old: "| `drained` |", new: "| drained |", want: "lacks a line for `drained`"},
		{old: "| `starting` |", new: "| `connecting` |", want: "lacks a line for `starting`"},
		{old: "| `connection refused` |", new: "| `connection was refused` |", want: "lacks a line for `connection refused`"},
		{old: "| `143` |", new: "| `143`, `144` |", want: "lists `144`"},
		{old: "| `--doctor` |", new: "| `--diagnose` |", want: "lacks a line for `--doctor`"},
		{old: "| `retries` |", new: "| `retry_count` |", want: "lacks a line for `retries`"},
		{old: "| `proxy_held_body_bytes` |", new: "| held bytes |", want: "lacks a line for `proxy_held_body_bytes`"},
		{old: "| `headers_ms` |", new: "| `header_ms` |", want: "lacks a line for `headers_ms`"},
		{old: "| `dns` |", new: "| names |", want: "lacks a line for `dns`"},
		{old: "### OAuthProxyMemory", new: "### Memory", want: "no section ### OAuthProxyMemory"},
		{old: "[OAuthProxyRetries](", new: "[OAuthProxyRepeats](", want: "names the alert OAuthProxyRepeats"},
		{old: "**Do.** The doctor", new: "The doctor", want: "must say what it means and what to do"},
		{old: "(`proxy_requests_in_flight` is", new: "(`proxy_in_flight` is", want: "names `proxy_in_flight`"},
		{old: "proxy --doctor --config", new: "proxy --diagnose --config", want: "the flag --diagnose"},
		{old: `.outcome == "idle_timeout"`, new: `.outcome == "idle"`, want: `.outcome == "idle"`},
		{old: "](#drain)", new: "](#draining)", want: "#draining"},
		{old: "`k8s/deployment.yaml`", new: "`k8s/deploy.yaml`", want: "k8s/deploy.yaml"},
		{old: "just rollout", new: "just restart", want: "just restart"},
		{old: "exec deploy/oauth-proxy -c proxy", new: "exec deploy/proxy -c proxy", want: "what is deployed is oauth-proxy"},
		{old: "/ko-app/anthropic-oauth-proxy ", new: "/usr/bin/ko-app/anthropic ", want: "/ko-app/anthropic"},
	} {
		t.Run(broken.old+" → "+broken.new, func(t *testing.T) {
			text := broken.apply(t, theRunbook(t))
			r := readRunbook(text)
			var complaint error
			for _, check := range []func() error{
				func() error { return checkTables(r, f) },
				func() error { return checkAlertSections(r, c) },
				func() error { return checkMentions(r, f, shown) },
				func() error { return checkLinks(r, string(justfile)) },
				func() error { return checkCommands(text, c) },
			} {
				if complaint = check(); complaint != nil {
					break
				}
			}
			assert.ErrorContains(t, complaint, broken.want)
		})
	}
}
