package flake

import (
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nix-community/go-nix/pkg/nar"
	"gotest.tools/v3/assert"
)

// `just vendor-hash` sets it.
var write = flag.Bool("write", false, "write the right vendorHash into flake.nix instead of failing")

var vendorHashLine = regexp.MustCompile(`vendorHash = "([^"]*)";`)

// buildGoModule's vendorHash is the archive hash of what `go mod vendor` writes. It is outdated after every change of go.mod, and
// after the first import of another package of a required module. This test needs no Nix.
func TestVendorHash(t *testing.T) {
	path := filepath.Join(repository, "flake.nix")
	flake, err := os.ReadFile(path)
	assert.NilError(t, err)
	found := vendorHashLine.FindAllSubmatch(flake, -1)
	assert.Equal(t, len(found), 1, "flake.nix should have exactly one line like `vendorHash = \"sha256-…\";`")
	old := string(found[0][1])

	vendor := filepath.Join(t.TempDir(), "vendor")
	goCommand(t, "mod", "download")
	goCommand(t, "mod", "vendor", "-o", vendor)
	sum := sha256.New()
	assert.NilError(t, nar.DumpPath(sum, vendor))
	want := "sha256-" + base64.StdEncoding.EncodeToString(sum.Sum(nil))

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

// goCommand runs the go command in the root module. It ignores workspaces and GOFLAGS of the environment.
func goCommand(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	output, err := cmd.CombinedOutput()
	assert.NilError(t, err, "go %s: %s", strings.Join(args, " "), output)
	return strings.TrimSpace(string(output))
}
