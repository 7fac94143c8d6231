package monitoring

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// product holds the program's names, from what it prints and serves, and the strings in its source.
type product struct {
	names    map[string]bool
	literals []string // every string in its source; a verb such as %d is an N, as the runbook writes it
}

func theProduct(t *testing.T) product {
	t.Helper()
	p := product{names: map[string]bool{"--help": true}}
	for metric, labels := range traffic(t) {
		p.names[metric] = true
		p.names[regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(metric, "")] = true
		for label, values := range labels {
			p.names[label] = true
			for value := range values {
				p.names[value] = true
			}
		}
	}
	for _, line := range seen.log {
		for key, value := range line {
			p.names[key] = true
			p.names[fmt.Sprint(value)] = true
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^  --?([a-z-]+)`).FindAllStringSubmatch(run(t, "--help"), -1) {
		p.names["--"+m[1]] = true
	}
	for _, m := range regexp.MustCompile(`(?m)^(\w+) = `).FindAllStringSubmatch(run(t, "--print-config"), -1) {
		p.names[m[1]] = true
	}
	for _, dir := range []string{"cmd", "internal"} {
		assert.NilError(t, filepath.WalkDir(filepath.Join(repository, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					text, _ := strconv.Unquote(lit.Value) // the parser has accepted it
					p.literals = append(p.literals, regexp.MustCompile(`%[a-z]`).ReplaceAllString(text, "N"))
				}
				return true
			})
			return nil
		}))
	}
	return p
}

// run runs the program once and returns what it prints.
func run(t *testing.T, arg string) string {
	t.Helper()
	cmd := exec.Command("go", "run", "./cmd/anthropic-oauth-proxy", arg)
	cmd.Dir = repository
	out, err := cmd.Output()
	assert.NilError(t, err, arg)
	return string(out)
}

// says reports whether the product uses a name. A word must be one of its strings, or be quoted in one, like a JSON key in a struct
// tag. A text of several words must be part of one.
func (p product) says(name string) bool {
	return p.names[name] || slices.ContainsFunc(p.literals, func(text string) bool {
		return text == name || strings.Contains(text, `"`+name+`"`) || strings.Contains(name, " ") && strings.Contains(text, name)
	})
}

var pages = []string{"README.md", "docs/contract.md", "docs/deploy.md", "docs/clients.md", "docs/runbook.md"}

func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, name))
	assert.NilError(t, err)
	return string(text)
}

// Every name on a page that looks like the product's exists in the product.
func TestPagesNameWhatThereIs(t *testing.T) {
	p := theProduct(t)
	for _, name := range pages {
		if name != "docs/clients.md" { // it names settings of other programs
			t.Run(name, func(t *testing.T) { checkPage(t, page(t, name), p) })
		}
	}
}

func checkPage(t *testing.T, text string, p product) {
	t.Helper()
	unknown := func(kind, name string) { t.Errorf("%s %q does not exist in the product", kind, name) }
	for _, name := range matches(text, `\b((?:proxy|go|process)_\w+)`) {
		if !p.says(name) {
			unknown("metric", name)
		}
	}
	for _, name := range matches(text, "`([a-z0-9]+(?:_[a-z0-9]+)+)`") {
		if !p.says(name) && name != "results_url" { // the API's
			unknown("name", name)
		}
	}
	for _, name := range matches(text, "`(--[a-z-]+)[ =`]") {
		if !p.names[name] {
			unknown("flag", name)
		}
	}
	for _, flags := range matches(text, "(?:cmd/|ko-app/|(?m:^)|`)anthropic-oauth-proxy((?: --[a-z-]+(?:[= ][^ `\n-][^ `\n]*)?)+)") {
		for _, name := range matches(flags, `(--[a-z-]+)`) {
			if !p.names[name] {
				unknown("flag", name)
			}
		}
	}
	for _, key := range matches(text, `\.(\w+) == "`) {
		if !p.says(key) {
			unknown("log key", key)
		}
	}
	for _, value := range matches(text, `\.\w+ == "(\w+)"`) {
		if !p.says(value) {
			unknown("log value", value)
		}
	}
}

// matches are the first groups of all matches.
func matches(text, pattern string) (found []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

// The first columns of the runbook's tables list only strings in the product's source and names that it shows.
func TestRunbookListsWhatTheProductSays(t *testing.T) {
	p := theProduct(t)
	for _, cell := range matches(page(t, "docs/runbook.md"), "(?m)^\\| (`[^|]*`) \\|") {
		for _, name := range matches(cell, "`([^`]+)`") {
			assert.Check(t, p.says(name), "docs/runbook.md lists %q, which the product never prints", name)
		}
	}
}

// Each alert's runbook_url leads to a heading. Every name that looks like an alert's is one.
func TestRunbookHasASectionForEveryAlert(t *testing.T) {
	text, alerts := page(t, "docs/runbook.md"), map[string]bool{}
	for _, alert := range loaded(t).alerts() {
		alerts[alert.Alert] = true
		assert.Check(t, strings.Contains(text, "\n### "+alert.Alert+"\n"), "docs/runbook.md: no section ### %s, to which the alert's runbook_url leads", alert.Alert)
	}
	for _, name := range matches(text, `(OAuthProxy\w+)`) {
		assert.Check(t, alerts[name], "docs/runbook.md names the alert %s, which rules.yaml does not have", name)
	}
}

// Links lead to existing files and headings, and all named files and recipes exist.
func TestPagesLeadSomewhere(t *testing.T) {
	for _, name := range append(slices.Clone(pages), "docs/performance.md", "docs/migration.md") {
		t.Run(name, func(t *testing.T) { checkLinks(t, name, page(t, name)) })
	}
}

func checkLinks(t *testing.T, name, text string) {
	t.Helper()
	justfile := page(t, "justfile")
	missing := func(kind, target string) { t.Errorf("%s: there is no %s %s", name, kind, target) }
	for _, link := range matches(text, `\]\(([^)]+)\)`) {
		file, anchor, _ := strings.Cut(link, "#")
		if strings.Contains(file, "://") {
			continue
		}
		target := name
		if file != "" {
			target = filepath.Join(filepath.Dir(name), file)
		}
		if _, err := os.Stat(filepath.Join(repository, target)); err != nil {
			missing("file", target)
		} else if anchor != "" && !slices.Contains(anchors(page(t, target)), anchor) {
			missing("heading", link)
		}
	}
	for _, file := range matches(text, "`((?:k8s|docs|e2e|internal|cmd)/[^` ]+)`") {
		if _, err := os.Stat(filepath.Join(repository, file)); err != nil {
			missing("file", file)
		}
	}
	for _, recipe := range matches(text, "(?m)(?:^|`)just ([a-z-]+)") {
		if !regexp.MustCompile(`(?m)^` + recipe + `\b.*:`).MatchString(justfile) {
			missing("recipe", recipe)
		}
	}
}

// anchors returns the anchors that GitHub makes of the headings.
func anchors(text string) (names []string) {
	for _, heading := range matches(text, `(?m)^#+ (.*)$`) {
		name := regexp.MustCompile(`[^\w -]`).ReplaceAllString(strings.ToLower(heading), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

// The objects, labels and paths in commands are the deployed ones.
func TestCommandsFitTheDeployment(t *testing.T) {
	c := loaded(t)
	for _, name := range []string{"docs/runbook.md", "docs/deploy.md"} {
		checkCommands(t, name, c)
	}
}

func checkCommands(t *testing.T, name string, c component) {
	t.Helper()
	text, pod := page(t, name), c.deployment.Spec.Template
	for pattern, want := range map[string][]string{
		`kubectl -n (\S+) `: {namespace, "tailscale-operator", "argocd", "kube-system"},
		`(?:deploy|deployment|svc|service)/([a-z0-9-]+)`: {c.deployment.Name, "operator"}, // the Tailscale Operator's own Deployment
		` -c ([a-z]\S*) `:                       {pod.Spec.Containers[0].Name},
		` -l (app\S+?)[\x60\s]`:                 {"app.kubernetes.io/name=" + pod.Labels["app.kubernetes.io/name"]},
		`--config=(/\S+?\.toml)`:                {strings.TrimPrefix(pod.Spec.Containers[0].Args[0], "--config=")},
		`(/ko-app/\S+) `:                        {"/ko-app/anthropic-oauth-proxy"},
		`describe networkpolicy (\S+?)[\x60\s]`: {c.deployment.Name, c.policy.Name},
	} {
		for _, got := range matches(text, pattern) {
			assert.Check(t, slices.Contains(want, got), "%s: %s matches %q, and what is deployed is %q", name, pattern, got, want)
		}
	}
}
