// Package readme compares the README with the program.
package readme

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// The README's table has every key of [proxy] in its order, with its default.
func TestKeys(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	assert.NilError(t, err)
	dir := t.TempDir() // no configuration file is there
	build := exec.Command("go", "build", "-buildvcs=false", "-o", dir+"/proxy", "./cmd/anthropic-oauth-proxy")
	build.Dir = "../.."
	out, err := build.CombinedOutput()
	assert.NilError(t, err, "%s", out)
	program := exec.Command(dir+"/proxy", "--print-config")
	program.Dir, program.Env = dir, []string{}
	printed, err := program.Output()
	assert.NilError(t, err)

	var documented, real []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([^|]*) \\|").FindAllStringSubmatch(string(readme), -1) {
		documented = append(documented, m[1]+" = "+strings.Trim(m[2], "` "))
	}
	section, _, _ := strings.Cut(string(printed), "[[headers]]")
	for _, m := range regexp.MustCompile(`(?m)^(\w+) = (.*)$`).FindAllStringSubmatch(section, -1) {
		real = append(real, m[1]+" = "+strings.Trim(m[2], "'"))
	}
	assert.Assert(t, len(real) > 0, "%s", printed)
	assert.DeepEqual(t, documented, real)
}
