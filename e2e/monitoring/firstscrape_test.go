package monitoring

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/basher83/anthropic-oauth-proxy/e2e/binary"
	"gotest.tools/v3/assert"
)

// increase() counts only what comes after a series' first sample. So 14 refused requests between the first two scrapes of a new pod
// fire OAuthProxyRejected only if the series existed before the first request. Among 100 good requests they must not fire it.
func TestRefusalsOfANewPodFireTheAlert(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(upstream))
	t.Cleanup(server.Close)
	for _, tt := range []struct {
		what       string
		good       int
		wantFiring string
	}{
		{"all requests refused", 0, `[{labels: '{alertname="OAuthProxyRejected"}', value: 1}]`},
		{"one in eight refused", 100, `[]`},
	} {
		t.Run(tt.what, func(t *testing.T) {
			p := binary.Start(t, binary.Config{Upstream: server.URL})
			first, err := p.Metrics()
			assert.NilError(t, err)
			for i := range 14 + tt.good {
				path := "/ok"
				if i < 14 {
					path = []string{"/400", "/401", "/403"}[i%3]
				}
				resp, err := http.Post(p.URL+path, "application/json", strings.NewReader("{}"))
				assert.NilError(t, err)
				_, err = io.Copy(io.Discard, resp.Body)
				assert.NilError(t, err)
				resp.Body.Close()
			}
			second, err := p.Metrics()
			assert.NilError(t, err)

			var series strings.Builder
			fmt.Fprint(&series, `[{series: 'up{job="oauth-proxy"}', values: 1x40}`)
			for name, value := range second {
				if !strings.HasPrefix(name, "proxy_requests_total{") {
					continue
				}
				before, ok := first[name]
				sample := fmt.Sprint(before)
				if !ok {
					sample = "_"
				}
				fmt.Fprintf(&series, ", {series: '%s', values: %s %vx40}", strings.Replace(name, "{", `{job="oauth-proxy",`, 1), sample, value)
			}
			assert.NilError(t, promtoolRuns(t, loaded(t).rule.Spec, fmt.Sprintf(`
rule_files: [rules.yaml]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series: %s]
    promql_expr_test:
      - {eval_time: 10m, expr: 'count by (alertname) (ALERTS{alertstate="firing"})', exp_samples: %s}
`, series.String(), tt.wantFiring), "test", "rules", "alerts.yaml"))
		})
	}
}
