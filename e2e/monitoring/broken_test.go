package monitoring

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// Each check sees what somebody might break: of every line here, old became new, and want must be read.
func TestWhatIsBrokenIsFoundOut(t *testing.T) {
	shown, p, intact := traffic(t), theProduct(t), loaded(t)
	for _, broken := range []struct{ file, old, new, want string }{
		{"k8s/monitoring/podmonitor.yaml", "interval: 30s", "intervall: 30s", "unknown field"},
		{"k8s/monitoring/podmonitor.yaml", "name: oauth-proxy\n  podMetrics", "name: proxy\n  podMetrics", "podmonitor.yaml selects"},
		{"k8s/monitoring/podmonitor.yaml", "port: http", "port: metrics", "must scrape the container's port"},
		{"k8s/monitoring/podmonitor.yaml", "jobLabel: app.kubernetes.io/name", "jobLabel: app", `ask for job="oauth-proxy"`},
		{"k8s/monitoring/rules.yaml", "for: 3m", "for: 0s", "a single scrape fires it"},
		{"k8s/monitoring/rules.yaml", "severity: critical", "severity: page", "severity must be"},
		{"k8s/monitoring/rules.yaml", "#oauthproxyretries", "#retries", "runbook_url"},
		{"k8s/monitoring/rules.yaml", "proxy_requests_queued{", "proxy_queue_length{", `no metric "proxy_queue_length"`},
		{"k8s/monitoring/rules.yaml", `error_type="timeout"`, `error_type="timed_out"`, `no error_type="timed_out"`},
		{"k8s/monitoring/rules.yaml", `proxy_requests_queued{job="oauth-proxy"}`, "proxy_requests_queued", `needs job="oauth-proxy"`},
		{"k8s/monitoring/rules.yaml", "max by (window)", "max by (period)", `a label "period"`},
		{"k8s/monitoring/dashboard.json", `"x": 6`, `"x": 5`, "overlaps"},
		{"k8s/monitoring/dashboard.json", `"id": 2,`, `"id": 1,`, "has the id 1"},
		{"k8s/monitoring/dashboard.json", `"refId"`, `"refID_"`, "unknown field"},
		{"k8s/monitoring/dashboard.json", `"uid": "${datasource}"`, `"uid": "abc"`, "one Grafana only"},
		{"k8s/monitoring/dashboard.json", `"{{status}}"`, `"{{code}}"`, `a label "code"`},
		{"docs/runbook.md", "| `cannot connect` |", "| `cannot dial` |", `lists "cannot dial"`},
		{"docs/runbook.md", "`connection refused`, `", "`connection was refused`, `", `lists "connection was refused"`},
		{"docs/runbook.md", "### OAuthProxyMemory", "### Memory", "no section ### OAuthProxyMemory"},
		{"docs/runbook.md", "[OAuthProxyMemory](", "[OAuthProxyMemories](", "the alert OAuthProxyMemories"},
		{"docs/runbook.md", "`proxy_ratelimit_reset_timestamp_seconds`", "`proxy_ratelimit_reset_time`", `"proxy_ratelimit_reset_time"`},
		{"docs/runbook.md", "proxy --doctor --config", "proxy --diagnose --config", `"--diagnose"`},
		{"docs/runbook.md", `.outcome == "idle_timeout"`, `.outcome == "idle"`, `log value "idle"`},
		{"docs/runbook.md", "](#doctor-and-log)", "](#doctor)", "no heading #doctor"},
		{"docs/runbook.md", "`k8s/deployment.yaml`", "`k8s/deploy.yaml`", "no file k8s/deploy.yaml"},
		{"docs/runbook.md", "just rollout", "just restart", "no recipe restart"},
		{"docs/runbook.md", "exec deploy/oauth-proxy", "exec deploy/proxy", `matches "proxy"`},
	} {
		t.Run(broken.file+": "+broken.old+" → "+broken.new, func(t *testing.T) {
			text := page(t, broken.file)
			assert.Assert(t, strings.Contains(text, broken.old), "it is no longer there to be broken: mend this case")
			text = strings.Replace(text, broken.old, broken.new, 1)
			if broken.file == "docs/runbook.md" {
				for _, err := range []error{
					checkPage(text, p), checkTables(text, p), checkAlertSections(text, intact), checkLinks(t, broken.file, text), checkCommands(text, intact),
				} {
					if err != nil && strings.Contains(err.Error(), broken.want) {
						return
					}
				}
				t.Fatalf("no check says %q", broken.want)
			}
			dir := t.TempDir()
			assert.NilError(t, os.CopyFS(filepath.Join(dir, "k8s"), os.DirFS(filepath.Join(repository, "k8s"))))
			assert.NilError(t, os.WriteFile(filepath.Join(dir, broken.file), []byte(text), 0o600))
			c, err := load(t, filepath.Join(dir, "k8s"), "monitoring")
			for _, check := range []func() error{
				func() error { return checkMonitor(c) },
				func() error { return checkAlerts(c) },
				func() error { return checkLayout(c.dashboard) },
				func() error { return checkSelectors(c, shown) },
			} {
				if err == nil {
					err = check()
				}
			}
			assert.ErrorContains(t, err, broken.want)
		})
	}
}
