// Package flake tests flake.nix without a network. A real Nix evaluates, checks, builds and runs it, and enters its shells, with the
// small stand-in for nixpkgs in testdata. It cannot test that the packages in the real nixpkgs have these names.
package flake

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
	"gotest.tools/v3/assert/cmp"
)

// inPublish matches the commands that the workflows run in the publish shell.
var inPublish = regexp.MustCompile(`nix develop \.#publish -c (\S+)`)

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
		assert.Check(t, cmp.Contains(outputs["overlays"], "default"))
	})

	// Compiles the package and its tests from the flake's source.
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

	t.Run("the overlay adds the same package", func(t *testing.T) {
		apply := "overlay: (overlay (builtins.getFlake \"path:" + nix.pkgs + "\").legacyPackages." + nix.system + " { }).anthropic-oauth-proxy.outPath"
		added := nix.succeeds(t, nix.stub("eval", "--impure", "--raw", ".#overlays.default", "--apply", apply)...)
		assert.Equal(t, added, nix.succeeds(t, nix.stub("eval", "--raw", ".#packages."+nix.system+".default.outPath")...))
	})

	t.Run("the shells have the tools", func(t *testing.T) {
		tools := "go gofmt gopls staticcheck just ko kubectl kustomize kind crane cosign curl jq promtool shellcheck " +
			"actionlint zizmor treefmt nixfmt shfmt git gh node npm"
		if runtime.GOOS == "linux" {
			tools += " runc ip iptables nginx haproxy caddy"
		}
		publish := "go ko kubectl" // used by `just render`
		files, err := filepath.Glob(filepath.Join(repository, ".github", "workflows", "*.yml"))
		assert.NilError(t, err)
		for _, file := range files {
			content, err := os.ReadFile(file)
			assert.NilError(t, err)
			for _, match := range inPublish.FindAllStringSubmatch(string(content), -1) {
				publish += " " + match[1]
			}
		}
		for shell, tools := range map[string]string{"default": tools, "publish": publish} {
			found := nix.succeeds(t, nix.stub("develop", ".#"+shell, "--command", "bash", "-c", "command -v "+tools)...)
			paths := strings.Fields(found)
			assert.Equal(t, len(paths), len(strings.Fields(tools)), "nix develop .#%s lacks one of: %s\nit has:\n%s", shell, tools, found)
			for _, path := range paths {
				assert.Assert(t, strings.HasPrefix(path, nix.store), "%s comes from this machine, not from the flake", path)
			}
			version := nix.succeeds(t, nix.stub("develop", ".#"+shell, "--command", "bash", "-c", "go version; echo GOTOOLCHAIN=$GOTOOLCHAIN")...)
			assert.Assert(t, cmp.Contains(version, "go1.26"))
			assert.Assert(t, cmp.Contains(version, "GOTOOLCHAIN=local"))
		}
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

// A check whose source lacks files would pass without checking them. So each check must find what this test breaks.
func broken(t *testing.T, nix *nixEnv) {
	for _, c := range []struct{ check, file, old, new, message string }{
		{"formatting", "e2e/standin/standin.go", `\npackage standin\n`, "\npackage  standin\n", "e2e/standin/standin.go"},
		{"formatting", "justfile", `\ndefault:\n`, "\ndefault :\n", "justfile"},
		{"lint", "cmd/anthropic-oauth-proxy/main.go", `\nfunc main\(\) \{`, "\nfunc unused() {}\n\nfunc main() {", "func unused is unused"},
		{"tests", "internal/contract_test.go", `\nimport \(\n`, "\nimport (\n\t\"no/such/package\"\n", "no/such/package"},
		{"scripts", ".github/resolve.sh", `\nexport KO_GO_PATH=.*\n`, "\nexport KO_GO_PATH=$unknown\n", "unknown is referenced but not assigned"},
		{"workflows", ".github/workflows/checks.yml", `persist-credentials: false`, "fetch-depth: 1", "artipacked"},
		{"manifests", "k8s/config.toml", `retries = `, "retrys = ", "retrys"},
	} {
		t.Run(c.check+" "+c.file, func(t *testing.T) {
			nix.edit(t, c.file, c.old, c.new)
			output := nix.fails(t, nix.stub("build", "--no-link", ".#checks."+nix.system+"."+c.check)...)
			assert.Assert(t, cmp.Contains(output, c.message))
		})
	}
}
