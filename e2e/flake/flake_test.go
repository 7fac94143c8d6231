// Package flake runs flake.nix without a network: a real Nix evaluates, checks, builds, runs and enters it, against the small
// nixpkgs in testdata. What stays unproved is what only the real nixpkgs knows: that its packages have these names.
package flake

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

var systems = []string{"x86_64-linux", "aarch64-linux", "aarch64-darwin"}

func TestFlake(t *testing.T) {
	nix := install(t)

	t.Run("the lock file fits the inputs", func(t *testing.T) {
		nix.succeeds(t, "flake", "metadata", "--no-update-lock-file")
	})

	t.Run("every system has every output", func(t *testing.T) {
		var outputs map[string]map[string]json.RawMessage
		shown := nix.succeeds(t, nix.stub("flake", "show", "--json")...)
		assert.NilError(t, json.Unmarshal([]byte(shown), &outputs), "%s", shown)
		for _, output := range []string{"packages", "apps", "devShells", "checks", "formatter"} {
			for _, system := range systems {
				assert.Check(t, cmp.Contains(outputs[output], system), "flake.nix: %s lacks a system", output)
			}
		}
	})

	// Compiles the package and its tests from what the flake calls its source.
	if !t.Run("the checks pass", func(t *testing.T) {
		nix.succeeds(t, nix.stub("flake", "check")...)
	}) {
		t.FailNow()
	}

	t.Run("the package builds", func(t *testing.T) {
		link := filepath.Join(t.TempDir(), "result")
		nix.succeeds(t, nix.stub("build", "--out-link", link)...)
		info, err := os.Stat(filepath.Join(link, "bin", "anthropic-oauth-proxy"))
		assert.NilError(t, err)
		assert.Equal(t, info.Mode().Perm(), os.FileMode(0o555))
		version, err := os.ReadFile(filepath.Join(repository, "cmd", "anthropic-oauth-proxy", "VERSION"))
		assert.NilError(t, err)
		built, err := filepath.EvalSymlinks(link)
		assert.NilError(t, err)
		assert.Assert(t, strings.HasSuffix(built, "-anthropic-oauth-proxy-"+strings.TrimSpace(string(version))), built)
	})

	t.Run("nix run is the proxy", func(t *testing.T) {
		config := nix.succeeds(t, nix.stub("run", ".", "--", "--print-config")...)
		assert.Assert(t, cmp.Contains(config, "127.0.0.1:8080"))
	})

	t.Run("the shell has the tools", func(t *testing.T) {
		tools := "go gofmt gopls golangci-lint just ko kubectl kustomize kind crane cosign curl jq promtool shellcheck " +
			"actionlint zizmor treefmt nixfmt shfmt git gh node npm"
		if runtime.GOOS == "linux" {
			tools += " runc ip iptables nginx haproxy caddy"
		}
		found := nix.succeeds(t, nix.stub("develop", "--command", "bash", "-c", "command -v "+tools)...)
		paths := strings.Fields(found)
		assert.Equal(t, len(paths), len(strings.Fields(tools)), "nix develop lacks one of: %s\nit has:\n%s", tools, found)
		for _, path := range paths {
			assert.Assert(t, strings.HasPrefix(path, nix.store), "nix develop: %s comes from this machine, not from the flake", path)
		}
		version := nix.succeeds(t, nix.stub("develop", "--command", "bash", "-c", "go version; echo GOTOOLCHAIN=$GOTOOLCHAIN")...)
		assert.Assert(t, cmp.Contains(version, "go1.26"))
		assert.Assert(t, cmp.Contains(version, "GOTOOLCHAIN=local"))
	})

	t.Run("nix fmt formats", func(t *testing.T) {
		nix.edit(t, "cmd/anthropic-oauth-proxy/main.go", `\npackage main\n`, "\npackage  main\n")
		nix.succeeds(t, nix.stub("fmt")...)
		formatted, err := os.ReadFile(filepath.Join(nix.source, "cmd", "anthropic-oauth-proxy", "main.go"))
		assert.NilError(t, err)
		assert.Assert(t, cmp.Contains(string(formatted), "\npackage main\n"))
	})

	t.Run("broken", func(t *testing.T) { broken(t, nix) })
}

// What is broken here on purpose has to end in an error that names it.
func broken(t *testing.T, nix *nixEnv) {
	check := func(name string) []string { return nix.stub("build", "--no-link", ".#checks."+nix.system+"."+name) }
	for _, c := range []struct {
		name, file, old, new string
		command              []string
		message              string
	}{
		{
			name: "a misspelt package",
			file: "flake.nix", old: `pkgs\.gopls`, new: "pkgs.gopsl",
			command: nix.stub("flake", "check"),
			message: "attribute 'gopsl' missing",
		},
		{
			name: "a misspelt argument of buildGoModule",
			file: "flake.nix", old: `ldflags = \[`, new: "ldFlags = [",
			command: nix.stub("build", "--no-link"),
			message: "called without required argument 'ldflags'",
		},
		{
			name: "a stale vendorHash",
			file: "flake.nix", old: `vendorHash = ".*";`, new: `vendorHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";`,
			command: nix.stub("build", "--no-link"),
			message: "hash mismatch in fixed-output derivation",
		},
		{
			name: "a package that is not in the source",
			file: "flake.nix", old: `\./internal\n`, new: "\n",
			command: nix.stub("build", "--no-link"),
			message: "anthropic-oauth-proxy/internal/",
		},
		{
			name: "a file that gofmt would change",
			file: "cmd/anthropic-oauth-proxy/main.go", old: `\npackage main\n`, new: "\npackage  main\n",
			command: check("formatting"),
			message: "cmd/anthropic-oauth-proxy/main.go",
		},
		{
			name: "what golangci-lint finds",
			file: "cmd/anthropic-oauth-proxy/main.go", old: `\nfunc main\(\) \{`, new: "\nfunc unused() {}\n\nfunc main() {",
			command: check("lint"),
			message: "func unused is unused",
		},
		{
			name: "a test that does not compile",
			file: "internal/metrics/metrics_test.go", old: `\nimport \(\n`, new: "\nimport (\n\t\"no/such/package\"\n",
			command: check("tests"),
			message: "no/such/package",
		},
		{
			name: "what shellcheck finds",
			file: ".github/resolve.sh", old: `\nexport KO_GO_PATH=.*\n`, new: "\nexport KO_GO_PATH=$toolchain/$unknown\n",
			command: check("scripts"),
			message: "unknown is referenced but not assigned",
		},
		{
			name: "a token that is left behind",
			file: ".github/workflows/checks.yml", old: `persist-credentials: false`, new: "fetch-depth: 1",
			command: check("workflows"),
			message: "artipacked",
		},
		{
			name: "an unknown key of the configuration",
			file: "k8s/config.toml", old: `retries = `, new: "retrys = ",
			command: check("manifests"),
			message: "retrys",
		},
		{
			name: "an input that is not the one in the lock file",
			file: "flake.nix", old: `github:NixOS/nixpkgs/nixpkgs-unstable`, new: "path:" + nix.pkgs,
			command: []string{"flake", "metadata", "--no-update-lock-file"},
			message: "requires lock file changes",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			nix.edit(t, c.file, c.old, c.new)
			output := nix.fails(t, c.command...)
			assert.Assert(t, cmp.Contains(output, c.message))
		})
	}
}
