// Package packaging holds the tests that keep flake.nix honest without Nix: what they check, `nix build` would only find on a
// machine that has it, and there as a riddle.
package packaging

import (
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

// `just vendor-hash` sets it.
var write = flag.Bool("write", false, "write the vendorHash that is right into flake.nix instead of failing")

const root = "../.." // from this folder, where `go test` starts the tests

var vendorHashLine = regexp.MustCompile(`vendorHash = "([^"]*)";`)

// The vendorHash of buildGoModule is the archive hash of what `go mod vendor` writes. It goes stale with every change of
// go.mod, and with the first import of one more package of a module that is already there.
func TestVendorHash(t *testing.T) {
	requireSourceTree(t)
	path := filepath.Join(root, "flake.nix")
	flake, err := os.ReadFile(path)
	assert.NilError(t, err)
	found := vendorHashLine.FindAllSubmatch(flake, -1)
	assert.Equal(t, len(found), 1, "flake.nix should have exactly one line like `vendorHash = \"sha256-…\";`")
	old := string(found[0][1])

	watchGoFiles(t)
	if out, err := goCommand("mod", "download"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("the modules of go.mod cannot be downloaded, so vendorHash stays unchecked: %v\n%s", err, out)
		}
		t.Skipf("vendorHash is not checked: the modules of go.mod cannot be downloaded here: %v\n%s", err, out)
	}
	vendor := filepath.Join(t.TempDir(), "vendor")
	out, err := goCommand("mod", "vendor", "-o", vendor)
	assert.NilError(t, err, "go mod vendor: %s", out)
	want, err := narHash(vendor)
	assert.NilError(t, err)

	switch {
	case old == want:
	case *write:
		flake = vendorHashLine.ReplaceAllLiteral(flake, []byte(`vendorHash = "`+want+`";`))
		assert.NilError(t, os.WriteFile(path, flake, 0o644))
		t.Logf("flake.nix: vendorHash is now %s", want)
	default:
		t.Fatalf("flake.nix: the modules changed and vendorHash did not. Run `just vendor-hash`, or paste this line over the old one:\n"+
			"          vendorHash = %q;", want)
	}
}

// requireSourceTree skips inside `nix build`, whose sandbox has neither flake.nix nor network, but the vendored modules.
func requireSourceTree(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, "vendor")); err == nil {
		t.Skip("flake.nix is not checked from a vendored tree, as inside `nix build`")
	}
}

// watchGoFiles visits what the commands below read, because `go test` repeats a cached result as long as no file that the
// test itself looked at has changed.
func watchGoFiles(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != root && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case filepath.Ext(path) == ".go" || entry.Name() == "go.mod" || entry.Name() == "go.sum":
			_, err = os.Stat(path)
		}
		return err
	})
	assert.NilError(t, err)
}

// goCommand runs the go command in the root module, whatever the environment says about workspaces and flags.
func goCommand(args ...string) (string, error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}
