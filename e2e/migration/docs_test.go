package migration

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	"sigs.k8s.io/yaml"
)

const page = "../../docs/migration.md"

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	assert.NilError(t, err)
	return string(b)
}

// fences are the page's code blocks of one language.
func fences(t *testing.T, language string) []string {
	t.Helper()
	found := regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllStringSubmatch(read(t, page), -1)
	assert.Assert(t, len(found) > 0, "no %s block in %s", language, page)
	var blocks []string
	for _, f := range found {
		blocks = append(blocks, f[1])
	}
	return blocks
}

// The page names exactly the subcommands and flags that exist, and calls them in a way that works.
func TestPageNamesWhatExists(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "run", "-C", "../../k8s/migration", ".", "--help").CombinedOutput()
	assert.NilError(t, err, "%s", out)
	verbs := regexp.MustCompile(`(?m)^  ([a-z]+)   `).FindAllStringSubmatch(string(out), -1)
	assert.Equal(t, len(verbs), 5)
	known := map[string]bool{"--help": true}
	for _, v := range verbs {
		known[v[1]] = true
	}
	for _, f := range regexp.MustCompile(`(?m)^  -([a-z-]+)`).FindAllStringSubmatch(string(out), -1) {
		known["--"+f[1]] = true
	}

	text := read(t, page)
	used := map[string]bool{}
	for _, line := range regexp.MustCompile(`(?m)^go run -C k8s/migration \. (.+)$`).FindAllStringSubmatch(text, -1) {
		for word := range strings.FieldsSeq(line[1]) {
			assert.Assert(t, known[word], "%s: `go run -C k8s/migration . %s` uses %s, which does not exist", page, line[1], word)
			used[word] = true
		}
	}
	for _, v := range verbs {
		assert.Assert(t, used[v[1]], "%s never shows the subcommand %s", page, v[1])
	}
	mine := regexp.MustCompile("`(?:(preflight|status|swap|rollback|cleanup)[a-z]*)?( ?--[a-z-]+)?( system)?`")
	for _, m := range mine.FindAllStringSubmatch(text, -1) {
		flag := strings.TrimSpace(m[2])
		assert.Assert(t, flag == "" || known[flag], "%s mentions %s, which is no flag of the command", page, m[0])
	}
	assert.Assert(t, strings.Count(text, "go run -C k8s/migration") >= 8)
}

func TestPageLinksAndRecipesExist(t *testing.T) {
	t.Parallel()
	text := read(t, page)
	links := regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(text, -1)
	assert.Assert(t, len(links) > 0)
	for _, l := range links {
		if !strings.Contains(l[1], "://") {
			_, err := os.Stat(filepath.Join(filepath.Dir(page), l[1]))
			assert.NilError(t, err, "%s links to nothing", page)
		}
	}
	recipes := read(t, "../../justfile")
	for _, r := range regexp.MustCompile("`just ([a-z-]+)").FindAllStringSubmatch(text, -1) {
		assert.Assert(t, regexp.MustCompile(`(?m)^`+r[1]+`[ a-z="*]*:`).MatchString(recipes), "%s mentions `just %s`, and the justfile has no such recipe", page, r[1])
	}
}

// The names in the command, on the page and in k8s/ are the same.
func TestNamesAreThoseOfTheManifests(t *testing.T) {
	t.Parallel()
	type manifest struct {
		Metadata struct {
			Name                string
			Labels, Annotations map[string]string
		}
		Spec struct{ Ports []struct{ Port int } }
	}
	load := func(file string) (m manifest) {
		assert.NilError(t, yaml.Unmarshal([]byte(read(t, "../../k8s/"+file)), &m))
		return m
	}
	s := load("service.yaml")
	assert.Equal(t, s.Metadata.Name, "oauth-proxy", "k8s/migration looks for the Service under another name: change newObject there and here")
	assert.Equal(t, s.Metadata.Annotations["tailscale.com/hostname"], bare)
	for _, file := range []string{"service.yaml", "deployment.yaml", "serviceaccount.yaml", "networkpolicy.yaml"} {
		m := load(file)
		assert.Equal(t, m.Metadata.Name, "oauth-proxy", file)
		assert.Equal(t, m.Metadata.Labels["app.kubernetes.io/name"], "oauth-proxy", "%s: step 3's way back would not delete it", file)
	}
	assert.Equal(t, load("namespace.yaml").Metadata.Name, bare)
	for _, n := range regexp.MustCompile(`deployment/([a-z-]+)`).FindAllStringSubmatch(read(t, page), -1) {
		assert.Assert(t, n[1] == "oauth-proxy" || n[1] == bare, "%s mentions %s", page, n[0])
	}
	application := load("argocd/application.yaml")
	assert.Equal(t, application.Metadata.Name, "oauth-proxy", "under the old Application's name it would take over, and prune, the old objects")
}

// What the page says one sees is what one sees: a whole migration is run, and each quoted line has to come up.
func TestPageQuotesWhatIsPrinted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var seen strings.Builder
	keep := func(r result) { assert.Equal(t, r.code, 0, "%s", r.out); seen.WriteString(r.out) }

	operator, manifests := w.devices[1], [2]map[string]any{w.cluster.objects["deployment/oauth-proxy"], w.cluster.objects["service/oauth-proxy"]}
	w.devices = append(w.devices[:1:1], w.devices[2:]...)
	w.cluster.ids = nil
	w.cluster.gone("deployment/oauth-proxy", "service/oauth-proxy")
	keep(w.run("preflight")) // step 2

	w.devices = append(w.devices, operator)
	w.cluster.ids = []string{newID}
	w.cluster.objects["deployment/oauth-proxy"], w.cluster.objects["service/oauth-proxy"] = manifests[0], manifests[1]
	keep(w.run("preflight")) // step 3
	keep(w.run("swap"))      // step 4
	keep(w.run("status"))    // step 5
	w.cluster.annotate("deployment/"+bare, swappedAt, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	keep(w.run("cleanup", "--watch=50ms")) // step 6

	for _, block := range fences(t, "text") {
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			pattern := "(?m)^" + strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".+") + "$"
			assert.Assert(t, regexp.MustCompile(pattern).MatchString(seen.String()), "%s quotes a line that nothing printed:\n%s\nin all of\n%s", page, line, &seen)
		}
	}
}

// The shell in the page parses.
func TestPageShellParses(t *testing.T) {
	t.Parallel()
	for _, block := range fences(t, "sh") {
		cmd := exec.Command("bash", "-n")
		cmd.Stdin = strings.NewReader(block)
		out, err := cmd.CombinedOutput()
		assert.NilError(t, err, "%s\n%s", block, out)
	}
}
