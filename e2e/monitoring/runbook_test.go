package monitoring

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// runbook is docs/runbook.md, by its headings.
type runbook struct {
	text     string
	sections map[string]string // heading to what stands under it, up to the next heading of any level
}

func readRunbook(text string) runbook {
	r := runbook{text, map[string]string{}}
	heading, inCode := "", false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			inCode = !inCode
		}
		if !inCode && strings.HasPrefix(line, "#") {
			heading = strings.TrimSpace(strings.TrimLeft(line, "#"))
			r.sections[heading] = ""
			continue
		}
		r.sections[heading] += line
	}
	return r
}

// listed are the code spans in the first column of a section's table.
func (r runbook) listed(section string) (names []string) {
	for line := range strings.Lines(r.sections[section]) {
		if cells := strings.Split(line, "|"); strings.HasPrefix(line, "| `") && len(cells) > 1 {
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
				names = append(names, m[1])
			}
		}
	}
	slices.Sort(names)
	return names
}

func theRunbook(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, "docs", "runbook.md"))
	assert.NilError(t, err)
	return string(text)
}

// Each table lists exactly what the program knows: nothing is missing, and nothing is named that is not there.
func TestRunbookListsWhatTheProgramKnows(t *testing.T) {
	assert.NilError(t, checkTables(readRunbook(theRunbook(t)), gatherFacts(t)))
}

func checkTables(r runbook, f facts) error {
	for _, section := range slices.Sorted(maps.Keys(f)) {
		listed := r.listed(section)
		for _, name := range f[section] {
			if !slices.Contains(listed, name) {
				return fmt.Errorf("docs/runbook.md: the table of the section %q lacks a line for `%s`", section, name)
			}
		}
		for _, name := range listed {
			if !slices.Contains(f[section], name) {
				return fmt.Errorf("docs/runbook.md: the section %q lists `%s`, which the program does not know; it knows %q", section, name, f[section])
			}
		}
	}
	return nil
}

// An alert's runbook_url leads to a heading, and a heading to an alert.
func TestRunbookHasASectionForEveryAlert(t *testing.T) {
	assert.NilError(t, checkAlertSections(readRunbook(theRunbook(t)), loaded(t)))
}

func checkAlertSections(r runbook, c component) error {
	alerts := map[string]bool{}
	for _, alert := range c.alerts() {
		alerts[alert.Alert] = true
		section, ok := r.sections[alert.Alert]
		if !ok {
			return fmt.Errorf("docs/runbook.md: no section ### %s, to which the alert's runbook_url leads", alert.Alert)
		}
		if !strings.Contains(section, "**Means.**") || !strings.Contains(section, "**Do.**") && !strings.Contains(section, "what to do.**") {
			return fmt.Errorf("docs/runbook.md: %s must say what it means and what to do", alert.Alert)
		}
	}
	for _, name := range regexp.MustCompile(`OAuthProxy\w+`).FindAllString(r.text, -1) {
		if !alerts[name] {
			return fmt.Errorf("docs/runbook.md names the alert %s, which rules.yaml does not have", name)
		}
	}
	return nil
}

// Whatever looks like a name of ours, anywhere in the text, is one.
func TestRunbookNamesNothingUnknown(t *testing.T) {
	shown, _ := traffic(t)
	assert.NilError(t, checkMentions(readRunbook(theRunbook(t)), gatherFacts(t), shown))
}

func checkMentions(r runbook, f facts, shown scrape) error {
	known := f.known()
	for _, series := range shown {
		for label := range series {
			known[label] = true
		}
	}
	for _, name := range []string{
		"proxy_error",     // the type in the body of our errors
		"addr", "aborted", // of the lines of the states running and stopped
		"time", // of every line
	} {
		known[name] = true
	}
	// snake_case in a code span is a metric, a label, an outcome, a type or a key.
	for _, span := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(r.text, -1) {
		if s := span[1]; regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)+$`).MatchString(s) && !known[s] {
			return fmt.Errorf("docs/runbook.md names `%s`, which is no metric, label, outcome, error type or key of the program", s)
		}
	}
	for _, name := range regexp.MustCompile(`\b(proxy|go|process)_\w+`).FindAllString(r.text, -1) {
		if _, ok := shown[name]; !ok && !known[name] {
			return fmt.Errorf("docs/runbook.md names the metric %s, which the proxy does not show", name)
		}
	}
	// Flags behind the program's name are its own.
	for _, command := range regexp.MustCompile("anthropic-oauth-proxy((?: --[a-z-]+(?:=[^ `\n]+)?)+)").FindAllStringSubmatch(r.text, -1) {
		for _, m := range regexp.MustCompile(`--[a-z-]+`).FindAllString(regexp.MustCompile(`=[^ ]+`).ReplaceAllString(command[1], ""), -1) {
			if !known[m] {
				return fmt.Errorf("docs/runbook.md gives the program the flag %s, which it does not have", m)
			}
		}
	}
	// What jq selects by must be a key and a value of the log.
	for _, m := range regexp.MustCompile(`\.(\w+) == "(\w+)"`).FindAllStringSubmatch(r.text, -1) {
		if !known[m[1]] || !known[m[2]] {
			return fmt.Errorf("docs/runbook.md selects %s, which no line of the log has", m[0])
		}
	}
	return nil
}

// A link within the page leads to a heading; a path and a recipe named in it exist.
func TestRunbookLeadsSomewhere(t *testing.T) {
	justfile, err := os.ReadFile(filepath.Join(repository, "justfile"))
	assert.NilError(t, err)
	assert.NilError(t, checkLinks(readRunbook(theRunbook(t)), string(justfile)))
}

func checkLinks(r runbook, justfile string) error {
	anchors := map[string]bool{}
	for heading := range r.sections {
		anchor := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(heading), "")
		anchors[strings.ReplaceAll(anchor, " ", "-")] = true
	}
	for _, m := range regexp.MustCompile(`\]\(#([^)]+)\)`).FindAllStringSubmatch(r.text, -1) {
		if !anchors[m[1]] {
			return fmt.Errorf("docs/runbook.md links to #%s, and no heading has that anchor", m[1])
		}
	}
	for _, m := range regexp.MustCompile("`((?:k8s|docs)/[^` ]+)`").FindAllStringSubmatch(r.text, -1) {
		if _, err := os.Stat(filepath.Join(repository, m[1])); err != nil {
			return fmt.Errorf("docs/runbook.md names the file %s: %w", m[1], err)
		}
	}
	for _, m := range regexp.MustCompile("(?m)(?:^|`)just ([a-z-]+)").FindAllStringSubmatch(r.text, -1) {
		if !regexp.MustCompile(`(?m)^` + m[1] + `\b.*:`).MatchString(justfile) {
			return fmt.Errorf("docs/runbook.md says `just %s`, and the justfile has no such recipe", m[1])
		}
	}
	return nil
}

// The names and paths in its commands are those that are deployed.
func TestRunbookCommandsFitTheDeployment(t *testing.T) {
	assert.NilError(t, checkCommands(theRunbook(t), loaded(t)))
}

func checkCommands(text string, c component) error {
	pod := c.deployment.Spec.Template
	label := "app.kubernetes.io/name=" + pod.Labels["app.kubernetes.io/name"]
	for pattern, want := range map[string]string{
		`kubectl -n (\S+?) (?:exec|get pod|describe|delete|port-forward|rollout)`: namespace,
		`deploy/(\S+?)[\x60\s]`:                 c.deployment.Name + "|operator", // the Tailscale Operator's own Deployment
		`exec \S+ -c (\S+) `:                    pod.Spec.Containers[0].Name,
		` -l (\S+?)[\x60\s]`:                    label,
		`--config=(/\S+?\.toml)`:                strings.TrimPrefix(pod.Spec.Containers[0].Args[0], "--config="),
		`(/ko-app/\S+) `:                        "/ko-app/anthropic-oauth-proxy",
		`describe networkpolicy (\S+?)[\x60\s]`: c.deployment.Name + "|" + c.networkPolicy.Name,
	} {
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1)
		if len(found) == 0 {
			return fmt.Errorf("docs/runbook.md: no command matches %s any more; mend the check", pattern)
		}
		for _, m := range found {
			if !slices.Contains(strings.Split(want, "|"), m[1]) {
				return fmt.Errorf("docs/runbook.md: %q names %s, and what is deployed is %s", m[0], m[1], want)
			}
		}
	}
	return nil
}
