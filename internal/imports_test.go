// Package internal_test guards how the packages depend on each other.
package internal_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

const module = "github.com/basher83/anthropic-oauth-proxy/"

// allowed is every import of a package of this module, and every import from outside the standard library.
var allowed = map[string][]string{
	"cmd/anthropic-oauth-proxy": {
		"internal/config", "internal/doctor", "internal/metrics", "internal/proxy", "internal/server",
		"github.com/prometheus/client_golang/prometheus", "github.com/prometheus/client_golang/prometheus/promhttp",
	},
	"internal/config":   {"internal/header", "internal/target", "github.com/pelletier/go-toml/v2", "github.com/pelletier/go-toml/v2/unstable"},
	"internal/doctor":   {"internal/target", "internal/upstream"},
	"internal/header":   {},
	"internal/metrics":  {"github.com/prometheus/client_golang/prometheus", "github.com/prometheus/client_golang/prometheus/collectors"},
	"internal/proxy":    {"internal/header", "internal/metrics", "internal/target", "internal/upstream", "golang.org/x/sync/semaphore"},
	"internal/server":   {"internal/target"},
	"internal/target":   {},
	"internal/upstream": {},
}

// Imports point one way: cmd imports all packages, proxy imports upstream and metrics, and server imports neither.
func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{if .GoFiles}}{{.ImportPath}} {{join .Imports " "}}{{end}}`, module+"...").Output()
	assert.NilError(t, err)
	seen := 0
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		pkg := strings.TrimPrefix(fields[0], module)
		may, ok := allowed[pkg]
		assert.Assert(t, ok, "package %s is new: say in this test what it may import", pkg)
		seen++
		for _, imported := range fields[1:] {
			if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
				continue // standard library
			}
			assert.Assert(t, slices.Contains(may, strings.TrimPrefix(imported, module)), "%s must not import %s", pkg, imported)
		}
	}
	assert.Equal(t, seen, len(allowed), "a package in this test no longer exists")
}
