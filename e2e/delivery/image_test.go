package delivery

import (
	"archive/tar"
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"gotest.tools/v3/assert"

	"github.com/basher83/anthropic-oauth-proxy/e2e/checkout"
)

const entrypoint = "/ko-app/anthropic-oauth-proxy"

func TestImageIsForAMD64AndARM64(t *testing.T) {
	manifest, err := builtIndex(t).IndexManifest()
	assert.NilError(t, err)
	var built []string
	for _, descriptor := range manifest.Manifests {
		built = append(built, descriptor.Platform.String())
	}
	assert.DeepEqual(t, built, []string{"linux/amd64", "linux/arm64"})
}

func TestImageHasABillOfMaterials(t *testing.T) {
	repo, digest, _ := strings.Cut(theImage(t).reference, "@")
	ref, err := name.NewTag(repo + ":" + strings.ReplaceAll(digest, ":", "-") + ".sbom")
	assert.NilError(t, err)
	_, err = remote.Get(ref)
	assert.NilError(t, err, "ko pushed no SBOM beside the image")
}

func TestImageHoldsOneStaticBinary(t *testing.T) {
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	for _, platform := range platforms {
		t.Run(platform.Architecture, func(t *testing.T) {
			image := imageFor(t, platform)
			config, err := image.ConfigFile()
			assert.NilError(t, err)
			assert.Equal(t, config.Config.User, fmt.Sprint(nonroot))
			assert.DeepEqual(t, config.Config.Entrypoint, []string{entrypoint})
			assert.Equal(t, len(config.Config.Cmd), 0)
			version, err := os.ReadFile(filepath.Join(repository, command, "VERSION"))
			assert.NilError(t, err)
			assert.DeepEqual(t, config.Config.Labels, map[string]string{
				"org.opencontainers.image.source":  "https://" + module,
				"org.opencontainers.image.version": strings.TrimSpace(string(version)),
			})

			files := addedFiles(t, image)
			// Besides the binary the image must hold nothing: no shell, no package manager, no kodata.
			assert.DeepEqual(t, slices.Sorted(maps.Keys(files)), []string{entrypoint})
			assert.NilError(t, checkBinary(files[entrypoint], machines[platform.Architecture]))
		})
	}
}

// checkBinary returns an error if the binary would not run in an empty image, or if it contains traces of where it was built.
func checkBinary(content []byte, machine elf.Machine) error {
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return err
	}
	if file.Machine != machine {
		return fmt.Errorf("the binary is for %s, not for %s", file.Machine, machine)
	}
	if libraries, _ := file.ImportedLibraries(); len(libraries) > 0 || file.Section(".interp") != nil {
		return fmt.Errorf("the binary is dynamically linked (%v), and the image has no loader: see CGO_ENABLED in .ko.yaml", libraries)
	}
	if file.Section(".symtab") != nil {
		return errors.New("the binary carries its symbols: see ldflags in .ko.yaml")
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return err
	}
	settings := map[string]string{}
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
		if strings.HasPrefix(setting.Key, "vcs") {
			return fmt.Errorf("the binary carries %s=%s, so every commit is a new image: see -buildvcs in .ko.yaml", setting.Key, setting.Value)
		}
	}
	if info.Path != importPath || settings["-trimpath"] != "true" {
		return fmt.Errorf("the binary should be %s, built with -trimpath, but is %s with %v", importPath, info.Path, settings)
	}
	return nil
}

// A tag without a digest would name another base image every week.
func TestBaseIsPinned(t *testing.T) {
	config, err := os.ReadFile(filepath.Join(repository, ".ko.yaml"))
	assert.NilError(t, err)
	pinned := regexp.MustCompile(`(?m)^defaultBaseImage: gcr\.io/distroless/static-debian13:nonroot@sha256:[0-9a-f]{64}$`)
	assert.Assert(t, pinned.Match(config), "defaultBaseImage in .ko.yaml names no digest")
}

// Two people who build in two places get the same image: its digest depends only on the source and the version of Go. For the second
// build everything else differs: folder, branch, tag, untracked files, go.work, environment, the settings of `go env -w`, and a
// patch in Go's standard library.
func TestSameSourceSameDigest(t *testing.T) {
	first := digest(theImage(t).reference)
	original, err := source()
	assert.NilError(t, err)
	parent, home := t.TempDir(), t.TempDir()
	dir := filepath.Join(parent, "a", "much deeper", "folder")
	assert.NilError(t, checkout.Copy(original, dir))
	for _, args := range [][]string{{"checkout", "--quiet", "-b", "elsewhere"}, {"tag", "v99.0.0"}} {
		_, err := checkout.Git(dir, args...)
		assert.NilError(t, err)
	}
	write := func(path, content string) {
		assert.NilError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		assert.NilError(t, os.WriteFile(path, []byte(content), 0o700))
	}
	write(filepath.Join(dir, "untracked.txt"), "not part of the program\n")
	write(filepath.Join(dir, "README.md"), "changed\n")
	write(filepath.Join(parent, "go.work"), "go 1.26.0\n\ngodebug http2client=0\n\nuse \"./a/much deeper/folder\"\n")
	write(filepath.Join(home, "go", "env"), "GOFLAGS=-gcflags=all=-l\nGOAMD64=v2\nGOARM64=v8.1\n")
	run := koRun{dir: dir, repo: "another/image", env: []string{
		"PATH=" + patchedGo(t) + ":" + os.Getenv("PATH"),
		"HOME=" + home, "XDG_CONFIG_HOME=" + home, "GOCACHE=" + goEnv(t, "GOCACHE"), "GOMODCACHE=" + goEnv(t, "GOMODCACHE"),
		"GOFLAGS=-buildvcs=true -tags=timetzdata", "GOAMD64=v3", "CGO_ENABLED=1", "SOURCE_DATE_EPOCH=1",
		"USER=somebody", "LANG=C", "TZ=Pacific/Auckland",
	}}
	_, second, err := run.resolve()
	assert.NilError(t, err)
	assert.Equal(t, digest(second), first, "something outside the source gets into the image: see .ko.yaml and .github/resolve.sh")
}

// patchedGo returns the folder of a `go` that compiles another time zone path into the program, as the one of nixpkgs does.
func patchedGo(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	original := filepath.Join(goEnv(t, "GOROOT"), "src", "time", "zoneinfo_unix.go")
	content, err := os.ReadFile(original)
	assert.NilError(t, err)
	patched := strings.Replace(string(content), `"/usr/share/zoneinfo/"`, `"/nix/store/tzdata/share/zoneinfo/"`, 1)
	assert.Assert(t, patched != string(content))
	bin, err := koBinary()
	assert.NilError(t, err)
	goBinary, err := exec.LookPath("go")
	assert.NilError(t, err)
	overlay := filepath.Join(dir, "overlay.json")
	for path, text := range map[string]string{
		filepath.Join(dir, "patched.go"): patched,
		overlay:                          fmt.Sprintf(`{"Replace": {%q: %q}}`, original, filepath.Join(dir, "patched.go")),
		filepath.Join(dir, "go"):         fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = build ]; then shift; set -- build -overlay %s \"$@\"; fi\nexec %s \"$@\"\n", overlay, goBinary),
	} {
		assert.NilError(t, os.WriteFile(path, []byte(text), 0o700))
	}
	assert.NilError(t, os.Symlink(bin, filepath.Join(dir, "ko")))
	return dir
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	value, err := exec.Command("go", "env", name).Output()
	assert.NilError(t, err)
	return strings.TrimSpace(string(value))
}

func imageFor(t *testing.T, platform v1.Platform) v1.Image {
	t.Helper()
	index := builtIndex(t)
	manifest, err := index.IndexManifest()
	assert.NilError(t, err)
	for _, descriptor := range manifest.Manifests {
		if descriptor.Platform.Satisfies(platform) {
			image, err := index.Image(descriptor.Digest)
			assert.NilError(t, err)
			return image
		}
	}
	t.Fatalf("the image index has nothing for %s", platform)
	return nil
}

// addedFiles returns the regular files that ko added to the base.
func addedFiles(t *testing.T, image v1.Image) map[string][]byte {
	t.Helper()
	layers, err := image.Layers()
	assert.NilError(t, err)
	assert.Assert(t, len(layers) > baseLayers)
	files := map[string][]byte{}
	for _, layer := range layers[baseLayers:] {
		archive, err := layer.Uncompressed()
		assert.NilError(t, err)
		for r := tar.NewReader(archive); ; {
			header, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			assert.NilError(t, err)
			if header.Typeflag == tar.TypeDir {
				continue
			}
			path := "/" + strings.TrimPrefix(header.Name, "/")
			assert.Equal(t, header.Typeflag, byte(tar.TypeReg), "%s is neither a file nor a folder", path)
			assert.Equal(t, header.FileInfo().Mode()&(fs.ModeSetuid|fs.ModeSetgid|0o022), fs.FileMode(0), "%s: mode %o", path, header.Mode)
			files[path], err = io.ReadAll(r)
			assert.NilError(t, err)
		}
		assert.NilError(t, archive.Close())
	}
	return files
}
