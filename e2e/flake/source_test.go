package flake

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gotest.tools/v3/assert"
)

var (
	sourceList = regexp.MustCompile(`(?s)fileset = lib\.fileset\.unions \[(.*?)\]`)
	climbing   = regexp.MustCompile("[\"`]((?:\\.\\./)*\\.\\.(?:/[^\"`]*)?)[\"`]")
)

// A folder that the flake's source leaves out is missing in `nix build` only, with its tests; and a test of the root module that
// reads what the source leaves out passes at every desk, and fails there.
func TestFlakeSource(t *testing.T) {
	flake, err := os.ReadFile(filepath.Join(repository, "flake.nix"))
	assert.NilError(t, err)
	list := sourceList.FindSubmatch(flake)
	assert.Assert(t, list != nil, "flake.nix should name its source as `fileset = lib.fileset.unions [ ./… ];`")
	source := map[string]bool{}
	for _, name := range strings.Fields(string(list[1])) {
		source[strings.TrimPrefix(name, "./")] = true
	}

	module := goCommand(t, "list", "-m")
	for pkg := range strings.Lines(goCommand(t, "list", "./...")) {
		folder := strings.TrimPrefix(strings.TrimSpace(pkg), module+"/")
		if top, _, _ := strings.Cut(folder, "/"); !source[top] {
			t.Errorf("flake.nix: package %s is not in its source. Add ./%s to the list in `fileset = lib.fileset.unions [ … ]`.", folder, top)
		}
	}
	tree := os.DirFS(repository)
	for name := range source {
		assert.NilError(t, fs.WalkDir(tree, name, func(file string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(file, "_test.go") {
				return err
			}
			text, err := fs.ReadFile(tree, file)
			for _, match := range climbing.FindAllSubmatch(text, -1) {
				target := path.Join(path.Dir(file), string(match[1]))
				if top, _, _ := strings.Cut(target, "/"); !source[top] && !source[target] {
					t.Errorf("%s reads %s, which `nix build` does not have. Move the test to e2e/, or add the file to the list in flake.nix.",
						file, target)
				}
			}
			return err
		}))
	}
}
