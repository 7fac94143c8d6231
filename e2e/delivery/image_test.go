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
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"gotest.tools/v3/assert"
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
	builtIndex(t)
	reference, err := builtReference()
	assert.NilError(t, err)
	repo, digest, _ := strings.Cut(reference, "@")
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

			files := addedFiles(t, image)
			// A shell, a package manager, kodata: anything beside the binary would be found here.
			assert.DeepEqual(t, slices.Sorted(maps.Keys(files)), []string{entrypoint})
			assert.NilError(t, checkBinary(files[entrypoint], machines[platform.Architecture]))
		})
	}
}

// checkBinary says what is wrong with a binary that would not run in an empty image, or that carries a mark of where it was built.
func checkBinary(content []byte, machine elf.Machine) error {
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return err
	}
	if file.Machine != machine {
		return fmt.Errorf("the binary is for %s, not for %s", file.Machine, machine)
	}
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			return errors.New("the binary needs a dynamic loader, which the image does not have: put CGO_ENABLED=0 into builds[0].env of .ko.yaml")
		}
	}
	if libraries, _ := file.ImportedLibraries(); len(libraries) > 0 {
		return fmt.Errorf("the binary needs the libraries %v, which the image does not have: put CGO_ENABLED=0 into builds[0].env of .ko.yaml", libraries)
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return err
	}
	if info.Path != importPath {
		return fmt.Errorf("the binary is %s, not %s", info.Path, importPath)
	}
	settings := map[string]string{}
	for _, setting := range info.Settings {
		settings[setting.Key] = setting.Value
		if strings.HasPrefix(setting.Key, "vcs") {
			return fmt.Errorf("the binary carries %s=%s, so every commit is a new image: put -buildvcs=false into builds[0].flags of .ko.yaml", setting.Key, setting.Value)
		}
	}
	if settings["-trimpath"] != "true" {
		return errors.New("the binary was built without -trimpath: it carries the folder it was built in, so every machine makes another image")
	}
	return nil
}

// Two people, two places, one image: the digest depends on the source alone. The second clone is built as unluckily as can be:
// deeper down, on another branch with a tag, with changed and untracked files that are not part of the program, and under
// a go.work and in an environment that change a build that lets them.
func TestSameSourceSameDigest(t *testing.T) {
	index := builtIndex(t)
	first, err := index.Digest()
	assert.NilError(t, err)

	source, err := checkout()
	assert.NilError(t, err)
	parent := t.TempDir()
	dir := filepath.Join(parent, "a", "much deeper", "folder")
	assert.NilError(t, clone(source, dir))
	for _, args := range [][]string{{"checkout", "--quiet", "-b", "elsewhere"}, {"tag", "v99.0.0"}} {
		_, err := git(dir, args...)
		assert.NilError(t, err)
	}
	write := func(path, content string) { assert.NilError(t, os.WriteFile(path, []byte(content), 0o600)) }
	write(filepath.Join(dir, "untracked.txt"), "not part of the program\n")
	write(filepath.Join(dir, "README.md"), "changed\n")
	write(filepath.Join(parent, "go.work"), "go 1.26.0\n\ngodebug http2client=0\n\nuse \"./a/much deeper/folder\"\n")
	run := koRun{dir: dir, repo: "another/image", env: []string{
		"HOME=" + t.TempDir(), "CGO_ENABLED=1", "GOFLAGS=-buildvcs=true", "USER=somebody", "LANG=C", "TZ=Pacific/Auckland",
	}}
	run.env = append(run.env, "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE")) // HOME moved them
	const advice = "something outside the source gets into the image: see builds[0] in .ko.yaml"

	second, err := run.build()
	assert.NilError(t, err)
	assert.Equal(t, second[strings.Index(second, "@")+1:], first.String(), advice)

	// The build cache could hide a difference, so once more without it. One platform is enough, and takes half the time.
	run.env = append(run.env, "GOCACHE="+t.TempDir())
	third, err := run.build("--platform=" + platforms[0].String())
	assert.NilError(t, err)
	digest, err := imageFor(t, platforms[0]).Digest()
	assert.NilError(t, err)
	assert.Equal(t, third[strings.Index(third, "@")+1:], digest.String(), advice)
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

// addedFiles are the regular files that ko put on top of the base.
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
