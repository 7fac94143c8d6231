package flake

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/checkout"
)

const repository = "../.."

// A nixEnv is a Nix with its own store, configuration and copy of the repository, all in temporary folders.
type nixEnv struct {
	source string // the copy; it is a git repository, because a flake sees only what git tracks
	store  string
	pkgs   string // the stand-in for nixpkgs
	system string
	env    []string
}

func install(t *testing.T) *nixEnv {
	t.Helper()
	if os.Getenv("IN_NIX_SHELL") != "" {
		t.Skip("skipped inside `nix develop`, which has just evaluated the flake with the real nixpkgs; `nix flake check` tests the rest")
	}
	for _, tool := range []string{"nix", "treefmt", "staticcheck", "actionlint", "zizmor", "shellcheck"} {
		if _, err := exec.LookPath(tool); err != nil {
			message := "the flake is not checked: " + tool + " is not installed (.ci/run installs it)"
			if os.Getenv("CI") != "" {
				t.Fatal(message)
			}
			t.Skip(message)
		}
	}
	// Nix makes its store read-only, including folders. Only root can remove those with t.TempDir.
	dir, err := os.MkdirTemp("", "flake")
	assert.NilError(t, err)
	dir, err = filepath.EvalSymlinks(dir)
	assert.NilError(t, err)
	t.Cleanup(func() {
		filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				return os.Chmod(path, 0o700)
			}
			return nil
		})
		os.RemoveAll(dir)
	})

	nix := &nixEnv{
		source: filepath.Join(dir, "source"),
		store:  filepath.Join(dir, "store"),
		pkgs:   filepath.Join(dir, "nixpkgs"),
		system: map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH] + "-" + runtime.GOOS,
		env: []string{
			"PATH=" + os.Getenv("PATH"),
			"HOME=" + dir,
			"XDG_CACHE_HOME=" + filepath.Join(dir, "cache"),
			"NIX_CONF_DIR=" + filepath.Join(dir, "conf"),
			"NIX_STORE_DIR=" + filepath.Join(dir, "store"),
			"NIX_STATE_DIR=" + filepath.Join(dir, "state"),
			"NIX_LOG_DIR=" + filepath.Join(dir, "log"),
			"NIX_LOCALSTATE_DIR=" + filepath.Join(dir, "localstate"),
			"GIT_CONFIG_GLOBAL=/dev/null",
			"GIT_CONFIG_NOSYSTEM=1",
		},
	}
	assert.NilError(t, os.Mkdir(filepath.Join(dir, "conf"), 0o755))
	conf := "experimental-features = nix-command flakes\nsandbox = false\nbuild-users-group =\nsubstituters =\nflake-registry =\n"
	assert.NilError(t, os.WriteFile(filepath.Join(dir, "conf", "nix.conf"), []byte(conf), 0o644))

	assert.NilError(t, checkout.Copy(repository, nix.source))
	assert.NilError(t, os.CopyFS(nix.pkgs, os.DirFS("testdata/nixpkgs")))
	assert.NilError(t, os.WriteFile(filepath.Join(nix.pkgs, "host.nix"), []byte(hostFacts(t, nix.system)), 0o644))
	return nix
}

// hostFacts tells the stand-in for nixpkgs what it may use of this machine. It downloads the modules, because a builder cannot.
func hostFacts(t *testing.T, system string) string {
	t.Helper()
	goCommand(t, "mod", "download")
	shell, err := exec.LookPath("bash")
	assert.NilError(t, err)
	return fmt.Sprintf("{ system = %q; shell = %q; path = %q; goCache = %q; goModCache = %q; }\n",
		system, shell, os.Getenv("PATH"), goCommand(t, "env", "GOCACHE"), goCommand(t, "env", "GOMODCACHE"))
}

// stub adds the options that select the stand-in for nixpkgs to a command. It adds them before `--`, where the program's arguments begin.
func (n *nixEnv) stub(args ...string) []string {
	override := []string{"--override-input", "nixpkgs", "path:" + n.pkgs, "--no-write-lock-file", "--print-build-logs"}
	verbs := 1
	if args[0] == "flake" {
		verbs = 2
	}
	return append(append(append([]string{}, args[:verbs]...), override...), args[verbs:]...)
}

func (n *nixEnv) succeeds(t *testing.T, args ...string) (stdout string) {
	t.Helper()
	stdout, all, err := n.run(args)
	assert.NilError(t, err, "nix %s\n%s", strings.Join(args, " "), all)
	return stdout
}

func (n *nixEnv) fails(t *testing.T, args ...string) (output string) {
	t.Helper()
	_, output, err := n.run(args)
	assert.Assert(t, err != nil, "nix %s should fail, but it passed", strings.Join(args, " "))
	return output
}

func (n *nixEnv) run(args []string) (stdout, all string, err error) {
	var out, both bytes.Buffer
	cmd := exec.Command("nix", args...)
	cmd.Dir, cmd.Env = n.source, n.env
	cmd.Stdout, cmd.Stderr = &out, &both
	err = cmd.Run()
	return out.String(), out.String() + both.String(), err
}

// edit replaces what the regular expression old matches, and restores it at the end of the test.
func (n *nixEnv) edit(t *testing.T, name, old, new string) {
	t.Helper()
	path := filepath.Join(n.source, name)
	content, err := os.ReadFile(path)
	assert.NilError(t, err)
	changed := regexp.MustCompile(old).ReplaceAllLiteral(content, []byte(new))
	assert.Assert(t, !bytes.Equal(changed, content), "%s does not match %s any more: adapt this test, which changes that text", name, old)
	t.Cleanup(func() { assert.NilError(t, os.WriteFile(path, content, 0o644)) })
	assert.NilError(t, os.WriteFile(path, changed, 0o644))
}
