package monitoring

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"gotest.tools/v3/assert"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// dashboard is the part of Grafana's classic dashboard model that ours uses. It is decoded strictly, so a misspelt field, which
// Grafana would ignore in silence, is an error.
type dashboard struct {
	UID           string            `json:"uid"`
	Title         string            `json:"title"`
	Description   string            `json:"description"`
	Tags          []string          `json:"tags"`
	SchemaVersion int               `json:"schemaVersion"`
	Version       int               `json:"version"`
	Editable      bool              `json:"editable"`
	GraphTooltip  int               `json:"graphTooltip"`
	Refresh       string            `json:"refresh"`
	Time          map[string]string `json:"time"`
	Timezone      string            `json:"timezone"`
	Links         []map[string]any  `json:"links"`
	Templating    map[string][]any  `json:"templating"`
	Annotations   map[string][]any  `json:"annotations"`
	Panels        []panel           `json:"panels"`
}

type panel struct {
	ID          int                      `json:"id"`
	Type        string                   `json:"type"`
	Title       string                   `json:"title"`
	Description string                   `json:"description"`
	Collapsed   bool                     `json:"collapsed"`
	Panels      []any                    `json:"panels"`
	GridPos     struct{ X, Y, W, H int } `json:"gridPos"`
	Datasource  *datasource              `json:"datasource"`
	FieldConfig struct {
		Defaults struct {
			Unit       string         `json:"unit"`
			Min        *float64       `json:"min"`
			Max        *float64       `json:"max"`
			Decimals   *int           `json:"decimals"`
			NoValue    string         `json:"noValue"`
			Color      map[string]any `json:"color"`
			Thresholds map[string]any `json:"thresholds"`
			Custom     map[string]any `json:"custom"`
		} `json:"defaults"`
		Overrides []struct {
			Matcher    struct{ ID, Options string }
			Properties []struct {
				ID    string
				Value any
			}
		} `json:"overrides"`
	} `json:"fieldConfig"`
	Options map[string]any `json:"options"`
	Targets []struct {
		RefID        string      `json:"refId"`
		Datasource   *datasource `json:"datasource"`
		Expr         string      `json:"expr"`
		LegendFormat string      `json:"legendFormat"`
	} `json:"targets"`
}

type datasource struct{ Type, UID string }

func decodeDashboard(text string) (dashboard, error) {
	var d dashboard
	decoder := json.NewDecoder(bytes.NewReader([]byte(text)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		return d, fmt.Errorf("dashboard.json: %w\ncorrect the field, or add it to the model in dashboard_test.go if Grafana knows it", err)
	}
	return d, nil
}

func decodedDashboard(t *testing.T) dashboard {
	t.Helper()
	d, err := decodeDashboard(loaded(t).dashboard.Data["oauth-proxy.json"])
	assert.NilError(t, err)
	return d
}

func TestDashboardIsWellFormed(t *testing.T) {
	assert.NilError(t, checkLayout(decodedDashboard(t)))
}

const columns = 24 // of Grafana's grid

func checkLayout(d dashboard) error {
	ids := map[int]string{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if p.Title == "" {
			return fmt.Errorf("panel %d has no title", p.ID)
		}
		if other, ok := ids[p.ID]; ok || p.ID == 0 {
			return fmt.Errorf("the panels %q and %q have the same id %d: ids are unique and not 0", other, p.Title, p.ID)
		}
		ids[p.ID] = p.Title
		g := p.GridPos
		if g.X < 0 || g.Y < 0 || g.W < 1 || g.H < 1 || g.X+g.W > columns {
			return fmt.Errorf("the panel %q lies outside the grid of %d columns", p.Title, columns)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					return fmt.Errorf("the panels %q and %q overlap at column %d, line %d", other, p.Title, x, y)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 {
			return fmt.Errorf("the panel %q needs a unit and a query", p.Title)
		}
		legends := map[string]bool{}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			for _, source := range []*datasource{p.Datasource, target.Datasource} {
				if source == nil || *source != (datasource{"prometheus", "${datasource}"}) {
					return fmt.Errorf("the panel %q must use the variable ${datasource}: a fixed uid exists in one Grafana only", p.Title)
				}
			}
			if refs[target.RefID] || target.LegendFormat == "" {
				return fmt.Errorf("the panel %q: each query needs a refId of its own and a legendFormat", p.Title)
			}
			refs[target.RefID], legends[target.LegendFormat] = true, true
		}
		for _, override := range p.FieldConfig.Overrides {
			if !legends[override.Matcher.Options] {
				return fmt.Errorf("the panel %q styles the series %q, which none of its queries is called", p.Title, override.Matcher.Options)
			}
		}
	}
	return nil
}

// What Grafana would put in place of its variables.
var grafanaVariables = strings.NewReplacer("$__rate_interval", "5m", "$__interval", "1m", "$__range", "1h")

// queries are the dashboard's expressions as Prometheus would get them.
func (d dashboard) queries() (queries []string) {
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			queries = append(queries, grafanaVariables.Replace(target.Expr))
		}
	}
	return queries
}

// promtool has no verb for a lone expression, so each becomes a recording rule.
func TestPromtoolAcceptsTheDashboardsQueries(t *testing.T) {
	assert.NilError(t, checkQueries(t, decodedDashboard(t)))
}

func checkQueries(t *testing.T, d dashboard) error {
	t.Helper()
	group := monitoringv1.RuleGroup{Name: "dashboard"}
	for i, expr := range d.queries() {
		if strings.Contains(expr, "$") {
			return fmt.Errorf("the query %q has a variable that the dashboard does not define", expr)
		}
		group.Rules = append(group.Rules, monitoringv1.Rule{Record: fmt.Sprintf("dashboard:query%d", i), Expr: intstr.FromString(expr)})
	}
	dir := t.TempDir()
	writeRules(t, monitoringv1.PrometheusRuleSpec{Groups: []monitoringv1.RuleGroup{group}}, dir)
	return runPromtool(t, dir, "check", "rules", "rules.yaml")
}

// The lines that stand for limits are constants, named by their legend.
func TestDashboardAgreesWithTheDeployedLimits(t *testing.T) {
	assert.NilError(t, checkDashboardLimits(decodedDashboard(t), loaded(t).limits))
}

func checkDashboardLimits(d dashboard, l limits) error {
	want := map[string]int64{"max_connections": l.maxConnections, "max_buffered_bytes": l.maxBufferedBytes, "limit": l.memory}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			constant := regexp.MustCompile(`^vector\((\d+)\)$`).FindStringSubmatch(target.Expr)
			if constant == nil {
				continue
			}
			limit, known := want[target.LegendFormat]
			if !known {
				return fmt.Errorf("the panel %q draws a line %q: name it after the limit that it is", p.Title, target.LegendFormat)
			}
			if constant[1] != strconv.FormatInt(limit, 10) {
				return fmt.Errorf("the panel %q draws %s at %s, but %d is deployed (config.toml, deployment.yaml): make them agree", p.Title, target.LegendFormat, constant[1], limit)
			}
			delete(want, target.LegendFormat)
		}
	}
	for name := range want {
		return fmt.Errorf("no panel draws the limit %q", name)
	}
	return nil
}

// A dashboard is edited in Grafana and exported; what is committed should look the same whoever did it.
func TestDashboardIsFormatted(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repository, "k8s", "monitoring", "dashboard.json"))
	assert.NilError(t, err)
	var out bytes.Buffer
	assert.NilError(t, json.Indent(&out, bytes.TrimSpace(text), "", "  "))
	assert.Assert(t, out.String()+"\n" == string(text), "format dashboard.json with `jq . `, two spaces deep")
}
