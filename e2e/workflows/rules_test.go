// Package workflows reads .github/workflows with the eyes of somebody who would abuse them: actionlint knows GitHub's syntax,
// the rules here are ours. The scripts that the workflows call are tested here too.
package workflows

import (
	"bytes"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"

	"github.com/rhysd/actionlint"
)

// writers are the jobs that may write anything at all, and what. Whoever needs more has to say so here.
var writers = map[string][]string{
	"publish image":       {"attestations", "id-token", "packages"},
	"publish deploy":      {"contents"},
	"update-flake update": {"actions", "contents", "pull-requests"},
}

// pushers are the jobs in which checkout may leave its token lying about.
var pushers = []string{"publish deploy"}

var (
	pinned = regexp.MustCompile(`^ *(- )?uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*$`)
	uses   = regexp.MustCompile(`^ *(- )?uses:`)
	recipe = regexp.MustCompile(`\bjust ([a-z][\w-]*)( +[^\s|;&<>'"]+)?`)
)

// problems lists what is wrong with a workflow, one sentence each. recipes are those of the justfile, with their parameters.
func problems(name, text string, recipes map[string]string) []string {
	var found []string
	report := func(format string, args ...any) { found = append(found, fmt.Sprintf(name+": "+format, args...)) }

	workflow, syntax := actionlint.Parse([]byte(text))
	for _, err := range syntax {
		report("%v", err)
	}
	if workflow == nil {
		return found
	}
	for number, line := range strings.Split(text, "\n") {
		if uses.MatchString(line) && !pinned.MatchString(line) {
			report("line %d: pin the action by its full commit, with the version behind it: `uses: owner/action@<40 hex digits> # v1.2.3`", number+1)
		}
	}
	if p := workflow.Permissions; p == nil || p.All != nil || len(p.Scopes) > 0 {
		report("write `permissions: {}` at the top: each job asks for what it needs")
	}
	if d := workflow.Defaults; d == nil || d.Run == nil || d.Run.Shell == nil || d.Run.Shell.Value != "bash" {
		report("write `defaults: {run: {shell: bash}}`: without it a failure in front of a pipe goes unnoticed")
	}
	for _, id := range slices.Sorted(maps.Keys(workflow.Jobs)) {
		job := workflow.Jobs[id]
		label := strings.TrimSuffix(name, ".yml") + " " + id
		if job.TimeoutMinutes == nil {
			report("job %s: give it `timeout-minutes`, a hanging job costs six hours", id)
		}
		if job.Permissions == nil {
			report("job %s: give it its own `permissions`", id)
		} else {
			for _, scope := range slices.Sorted(maps.Keys(job.Permissions.Scopes)) {
				if job.Permissions.Scopes[scope].Value.Value == "write" && !slices.Contains(writers[label], scope) {
					report("job %s: `%s: write` is not in the list of what this job may write; is it needed?", id, scope)
				}
			}
			if job.Permissions.All != nil {
				report("job %s: name the permissions one by one instead of `%s`", id, job.Permissions.All.Value)
			}
		}
		for _, step := range job.Steps {
			switch exec := step.Exec.(type) {
			case *actionlint.ExecAction:
				action := exec.Uses.Value
				if strings.Contains(action, "/setup-") {
					report("job %s: take the tool from the flake (`nix develop -c …`) instead of %s", id, action)
				}
				keeps := exec.Inputs["persist-credentials"]
				if strings.HasPrefix(action, "actions/checkout@") && (keeps == nil || keeps.Value.Value != "false") && !slices.Contains(pushers, label) {
					report("job %s: give checkout `persist-credentials: false`, this job does not push", id)
				}
			case *actionlint.ExecRun:
				for _, sentence := range scriptProblems(exec.Run.Value, recipes) {
					report("job %s: %s", id, sentence)
				}
			}
		}
	}
	return found
}

func scriptProblems(script string, recipes map[string]string) []string {
	var found []string
	if strings.Contains(script, "${{") {
		found = append(found, "a script must not contain `${{ }}`, which is pasted in as code: hand it over by `env`")
	}
	check := exec.Command("bash", "-n")
	check.Stdin = strings.NewReader(script)
	if output, err := check.CombinedOutput(); err != nil {
		found = append(found, fmt.Sprintf("bash cannot read the script: %s", bytes.TrimSpace(output)))
	}
	for _, match := range recipe.FindAllStringSubmatch(script, -1) {
		parameters, ok := recipes[match[1]]
		switch {
		case !ok:
			found = append(found, fmt.Sprintf("the justfile has no recipe %q (it has: %s)", match[1],
				strings.Join(slices.Sorted(maps.Keys(recipes)), ", ")))
		case match[2] != "" && parameters == "":
			found = append(found, fmt.Sprintf("the justfile's recipe %q takes no argument, but gets%s: give it `*flags`", match[1], match[2]))
		}
	}
	return found
}
