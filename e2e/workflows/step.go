// Package workflows runs the scripts in .github/workflows, and the scripts they call, on local repositories and a local registry.
package workflows

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/basher83/anthropic-oauth-proxy/e2e/checkout"
	"sigs.k8s.io/yaml"
)

type workflow struct {
	Jobs map[string]struct {
		Steps []struct{ Name, Run string } `json:"steps"`
	} `json:"jobs"`
}

// A Step is one step of a workflow that runs a script. Instead of `nix develop .#publish -c …` it runs the script Nix with the words
// that follow.
type Step struct {
	File, Job, Name string
	Nix             string   // a script of sh
	Env             []string // added to the tests' environment
}

// Run runs the step in dir, a checkout, as GitHub's runner does. It returns everything that the step prints, and its outputs.
func (s Step) Run(dir string) (printed, outputs string, err error) {
	content, err := os.ReadFile(filepath.Join(dir, ".github", "workflows", s.File))
	if err != nil {
		return "", "", err
	}
	var w workflow
	if err := yaml.Unmarshal(content, &w); err != nil {
		return "", "", fmt.Errorf("%s: %w", s.File, err)
	}
	script := ""
	for _, step := range w.Jobs[s.Job].Steps {
		if step.Name == s.Name {
			script = step.Run
		}
	}
	if script == "" {
		return "", "", fmt.Errorf("%s: the job %s has no step %q with a script", s.File, s.Job, s.Name)
	}
	temp, err := os.MkdirTemp("", "step")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(temp)
	nix := "#!/bin/sh\nset -eu\n[ \"$1 $2 $3\" = 'develop .#publish -c' ]\nshift 3\n" + s.Nix
	if err := os.WriteFile(filepath.Join(temp, "nix"), []byte(nix), 0o700); err != nil {
		return "", "", err
	}
	file := filepath.Join(temp, "output")
	cmd := exec.Command("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(append(checkout.Env(), s.Env...),
		"PATH="+temp+":"+os.Getenv("PATH"), "RUNNER_TEMP="+temp, "GITHUB_OUTPUT="+file)
	output, err := cmd.CombinedOutput()
	if err != nil {
		return string(output), "", fmt.Errorf("%s, step %q: %w: %s", s.File, s.Name, err, strings.TrimSpace(string(output)))
	}
	set, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		err = nil
	}
	return string(output), string(set), err
}
