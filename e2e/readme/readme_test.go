// Package readme compares the README with the program. It also compares the memory figures in README and runbook with k8s/.
package readme

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

// The README's table has all keys of [proxy] with their defaults, in the program's order.
func TestKeys(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	assert.NilError(t, err)
	dir := t.TempDir() // it has no configuration file
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

// The stand-in answers the README's request. Without a credential it refuses it with 401, as the README says.
func TestStandinAnswers(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	assert.NilError(t, err)
	_, section, found := strings.Cut(string(readme), "**See the flag")
	assert.Assert(t, found)
	command := regexp.MustCompile(`curl \S+ http://127\.0\.0\.1:8080(/\S+)[^\x60]*?-d '([^']+)'`).FindStringSubmatch(section)
	assert.Assert(t, command != nil, "the README has no curl command for the stand-in")
	up, err := standin.Start(standin.Options{Plain: true})
	assert.NilError(t, err)
	defer up.Close()
	for credential, want := range map[string]int{"": http.StatusUnauthorized, "Bearer sk-ant-oat01-any": http.StatusOK} {
		r, err := http.NewRequest("POST", up.URL+command[1], strings.NewReader(command[2]))
		assert.NilError(t, err)
		r.Header = http.Header{"Content-Type": {"application/json"}, "Anthropic-Version": {"2023-06-01"}, "Anthropic-Beta": {"oauth-2025-04-20"}}
		if credential != "" {
			r.Header.Set("Authorization", credential)
		}
		resp, err := http.DefaultClient.Do(r)
		assert.NilError(t, err)
		resp.Body.Close()
		assert.Equal(t, resp.StatusCode, want)
	}
}

// The README states the Deployment's memory limit and GOMEMLIMIT. The runbook's example of a larger body limit starts from the
// deployed values. Its new values are large enough: a body fits into three quarters of max_buffered_bytes, and GOMEMLIMIT
// and the memory limit grow by as much as max_buffered_bytes.
func TestMemory(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile("../../" + name)
		assert.NilError(t, err)
		return string(text)
	}
	number := func(text, pattern string) int {
		m := regexp.MustCompile(pattern).FindStringSubmatch(text)
		assert.Assert(t, m != nil, "nothing matches %s", pattern)
		n, err := strconv.Atoi(m[1])
		assert.NilError(t, err)
		return n
	}
	readme, runbook, deployment, config := read("README.md"), read("docs/runbook.md"), read("k8s/deployment.yaml"), read("k8s/config.toml")
	goLimit, limit := number(deployment, `value: (\d+)MiB`), number(deployment, `limits:\s+memory: (\d+)Mi`)
	want := fmt.Sprintf("%d MiB with `GOMEMLIMIT=%dMiB`", limit, goLimit)
	assert.Assert(t, strings.Contains(readme, want), "README.md must say %s", want)

	more := map[string]int{}
	for _, tt := range []struct {
		name     string
		deployed int
		unit     string
	}{
		{"max_body_bytes", number(config, `max_body_bytes = (\d+)`), ""},
		{"max_buffered_bytes", number(config, `max_buffered_bytes = (\d+)`), ""},
		{"GOMEMLIMIT", goLimit, "MiB"},
		{"memory, twice", limit, "Mi"},
	} {
		line := fmt.Sprintf(`(?m)^%s +%d%s → (\d+)%s `, tt.name, tt.deployed, tt.unit, tt.unit)
		more[tt.name] = number(runbook, line) - tt.deployed
		if tt.name == "max_buffered_bytes" {
			assert.Assert(t, number(runbook, line)*3/4 >= number(runbook, `→ (\d+)`), "the body does not fit into three quarters of max_buffered_bytes")
		}
	}
	assert.Equal(t, more["GOMEMLIMIT"], more["max_buffered_bytes"]>>20)
	assert.Equal(t, more["memory, twice"], more["GOMEMLIMIT"])
}
