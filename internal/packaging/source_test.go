package packaging

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

// flakeSource is the list in flake.nix of what `nix build` gets to see, as paths from the root.
func flakeSource(t *testing.T) map[string]bool {
	t.Helper()
	flake, err := os.ReadFile(filepath.Join(root, "flake.nix"))
	assert.NilError(t, err)
	list := sourceList.FindSubmatch(flake)
	assert.Assert(t, list != nil, "flake.nix should name its source as `fileset = lib.fileset.unions [ ./… ];`")
	source := map[string]bool{}
	for _, name := range strings.Fields(string(list[1])) {
		source[strings.TrimPrefix(name, "./")] = true
	}
	return source
}

// A folder that the flake's source leaves out is missing in `nix build` only, together with its tests and its imports.
func TestFlakeSourceHasEveryPackage(t *testing.T) {
	requireSourceTree(t)
	source := flakeSource(t)
	for _, name := range []string{"go.mod", "go.sum"} {
		assert.Check(t, source[name], "flake.nix: add ./%s to the list in `fileset = lib.fileset.unions [ … ]`", name)
	}
	watchGoFiles(t)
	dirs, err := goCommand("list", "-f", "{{.Dir}}", "./...")
	assert.NilError(t, err, "go list: %s", dirs)
	absolute, err := filepath.Abs(root)
	assert.NilError(t, err)
	for dir := range strings.Lines(dirs) {
		rel, err := filepath.Rel(absolute, strings.TrimSpace(dir))
		assert.NilError(t, err)
		if top, _, _ := strings.Cut(filepath.ToSlash(rel), "/"); !source[top] {
			t.Errorf("flake.nix: package %s is not in its source. Add ./%s to the list in `fileset = lib.fileset.unions [ … ]`.", rel, top)
		}
	}
}

// A test of the root module that reads what the source leaves out passes at every desk, and fails in `nix build`.
func TestTestsStayInsideTheFlakeSource(t *testing.T) {
	requireSourceTree(t)
	source := flakeSource(t)
	for name := range source {
		err := filepath.WalkDir(filepath.Join(root, name), func(file string, entry fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(file, "_test.go") {
				return err
			}
			for _, outside := range readsOutside(t, filepath.ToSlash(file), source) {
				t.Errorf("%s reads %s, which `nix build` does not have. Move the test to e2e/, or add the file to the list in flake.nix.",
					filepath.Base(file), outside)
			}
			return nil
		})
		assert.NilError(t, err)
	}
}

// readsOutside looks for string literals that climb out of the test's own folder. This package alone may: it skips in `nix build`.
func readsOutside(t *testing.T, file string, source map[string]bool) []string {
	t.Helper()
	folder := strings.TrimPrefix(path.Dir(file), root+"/")
	if folder == "internal/packaging" {
		return nil
	}
	text, err := os.ReadFile(file)
	assert.NilError(t, err)
	var found []string
	for _, match := range climbing.FindAllSubmatch(text, -1) {
		target := path.Join(folder, string(match[1]))
		if top, _, _ := strings.Cut(target, "/"); !source[top] {
			found = append(found, target)
		}
	}
	return found
}
