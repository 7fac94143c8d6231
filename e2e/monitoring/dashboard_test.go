package monitoring

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"gotest.tools/v3/assert"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// dashboard is the part of Grafana's classic dashboard model that ours uses. It is decoded strictly, because Grafana silently ignores
// misspelt fields.
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
	Datasource  struct{ Type, UID string }
	FieldConfig struct {
		Defaults  map[string]any
		Overrides []any
	} `json:"fieldConfig"`
	Options  map[string]any `json:"options"`
	Interval string         `json:"interval"`
	Targets  []struct {
		RefID        string `json:"refId"`
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
		Format       string `json:"format"`
	} `json:"targets"`
}

func decodeDashboard(t *testing.T, text string) (d dashboard) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	assert.NilError(t, decoder.Decode(&d), "dashboard.json: correct the field, or add it to the model here if Grafana knows it")
	return d
}

// Panels do not overlap, have unique ids, and query the Prometheus that the user has chosen.
func TestDashboardIsWellFormed(t *testing.T) {
	ids, taken := map[int]string{}, map[[2]int]string{}
	for _, p := range loaded(t).dashboard.Panels {
		assert.Check(t, p.ID != 0 && ids[p.ID] == "", "the panel %q has the id %d, and so has %q", p.Title, p.ID, ids[p.ID])
		ids[p.ID] = p.Title
		g := p.GridPos
		assert.Check(t, g.X >= 0 && g.W > 0 && g.H > 0 && g.X+g.W <= 24, "the panel %q lies outside the grid of 24 columns", p.Title)
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				other, ok := taken[[2]int{x, y}]
				assert.Check(t, !ok, "the panel %q overlaps %q at column %d, line %d", p.Title, other, x, y)
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		assert.Check(t, p.Datasource.UID == "${datasource}", "the panel %q must use the variable ${datasource}: a fixed uid exists in one Grafana only", p.Title)
		assert.Check(t, p.FieldConfig.Defaults["unit"] != nil && len(p.Targets) > 0, "the panel %q needs a unit and a query", p.Title)
	}
}

// The values that Grafana would substitute for its variables.
var grafanaVariables = strings.NewReplacer("$__rate_interval", "5m", "$__interval", "1m", "$__range", "1h")

// promtool has no command to check a single expression, so each becomes a recording rule.
func TestPromtoolAcceptsTheDashboardsQueries(t *testing.T) {
	group := monitoringv1.RuleGroup{Name: "dashboard"}
	for _, p := range loaded(t).dashboard.Panels {
		for _, target := range p.Targets {
			group.Rules = append(group.Rules, monitoringv1.Rule{
				Record: fmt.Sprintf("dashboard:panel%d:%s", p.ID, target.RefID),
				Expr:   intstr.FromString(grafanaVariables.Replace(target.Expr)),
			})
		}
	}
	assert.NilError(t, promtoolRuns(t, monitoringv1.PrometheusRuleSpec{Groups: []monitoringv1.RuleGroup{group}}, "", "check", "rules", "rules.yaml"))
}
