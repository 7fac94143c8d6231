package workflows

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rhysd/actionlint"
	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

const (
	repository = "../.."
	folder     = repository + "/.github/workflows"
)

func TestWorkflows(t *testing.T) {
	files, err := filepath.Glob(folder + "/*")
	assert.NilError(t, err)
	assert.Assert(t, len(files) >= 3, "found only %q", files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		assert.NilError(t, err)
		for _, problem := range problems(filepath.Base(file), string(text), recipes(t)) {
			t.Error(problem)
		}
	}
}

// actionlint knows GitHub's syntax, contexts, runners and the inputs of well-known actions. With shellcheck it reads the scripts too.
func TestActionlint(t *testing.T) {
	shellcheck, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Log("the scripts are read without shellcheck, which is not installed (Debian: apt-get install shellcheck)")
	}
	var report bytes.Buffer
	linter, err := actionlint.NewLinter(&report, &actionlint.LinterOptions{Shellcheck: shellcheck})
	assert.NilError(t, err)
	findings, err := linter.LintDir(folder, nil)
	assert.NilError(t, err)
	assert.Equal(t, len(findings), 0, "mend what actionlint found:\n%s", &report)
}

var recipeLine = regexp.MustCompile(`(?m)^([a-z][\w-]*)( [^\n:]*)?:([^=\n]*)$`)

func recipes(t *testing.T) map[string]string {
	t.Helper()
	justfile, err := os.ReadFile(repository + "/justfile")
	assert.NilError(t, err)
	parameters := map[string]string{}
	for _, match := range recipeLine.FindAllStringSubmatch(string(justfile), -1) {
		parameters[match[1]] = match[2]
	}
	return parameters
}

const good = `name: sample
on: push
permissions: {}
defaults:
  run:
    shell: bash
jobs:
  one:
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    permissions:
      contents: read
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
        with:
          persist-credentials: false
      - run: just test
`

// Each rule is broken once, so that none of them is a rule that nothing can break.
func TestRulesFindWhatIsWrong(t *testing.T) {
	assert.DeepEqual(t, problems("sample.yml", good, map[string]string{"test": ""}), []string(nil))
	for _, c := range []struct{ name, old, new, problem string }{
		{"a repeated key", "on: push\n", "on: push\non: pull_request\n", "duplicated"},
		{"a tag instead of a commit", "@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7", "line 14: pin the action"},
		{"a commit without its version", " # v7.0.1", "", "line 14: pin the action"},
		{"permissions for every job", "permissions: {}\n", "permissions: read-all\n", "write `permissions: {}`"},
		{"no permissions at the top", "permissions: {}\n", "", "write `permissions: {}`"},
		{"no permissions in the job", "    permissions:\n      contents: read\n", "", "job one: give it its own `permissions`"},
		{"all permissions in the job", "    permissions:\n      contents: read\n", "    permissions: write-all\n", "instead of `write-all`"},
		{"a permission too many", "contents: read", "contents: write", "job one: `contents: write` is not in the list"},
		{"no shell", "    shell: bash\n", "    working-directory: x\n", "write `defaults: {run: {shell: bash}}`"},
		{"no time limit", "    timeout-minutes: 5\n", "", "job one: give it `timeout-minutes`"},
		{"a token left behind", "persist-credentials: false", "fetch-depth: 0", "job one: give checkout `persist-credentials: false`"},
		{"a tool from elsewhere", "actions/checkout@", "actions/setup-go@", "job one: take the tool from the flake"},
		{"an injection", "just test", `echo "${{ github.event.pull_request.title }}"`, "must not contain `${{ }}`"},
		{"a script with a typo", "run: just test", `run: "if true; then echo"`, "bash cannot read the script"},
		{"a recipe that is not there", "just test", "just tset", `the justfile has no recipe "tset"`},
		{"an argument too many", "just test", "just test -v", `"test" takes no argument, but gets -v`},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(good, c.old, c.new, 1)
			assert.Assert(t, text != good)
			found := problems("sample.yml", text, map[string]string{"test": ""})
			assert.Assert(t, cmp.Contains(strings.Join(found, "\n"), c.problem))
		})
	}
}

func TestRecipesAreFound(t *testing.T) {
	found := recipes(t)
	for _, name := range []string{"run", "test", "vendor-hash"} {
		_, ok := found[name]
		assert.Check(t, ok, "read only these recipes from the justfile: %q", found)
	}
	assert.Equal(t, found["run"], " *flags")
}
