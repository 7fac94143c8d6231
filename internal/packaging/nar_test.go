package packaging

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"gotest.tools/v3/assert"
)

// narHash is what `nix hash path` prints for a file tree: the SHA-256 of its archive (NAR), which knows names, contents,
// symbolic links and the executable bit, and nothing else: no owners, no times.
func narHash(root string) (string, error) {
	sum := sha256.New()
	if err := narString(sum, "nix-archive-1"); err != nil {
		return "", err
	}
	if err := narNode(sum, root); err != nil {
		return "", err
	}
	return "sha256-" + base64.StdEncoding.EncodeToString(sum.Sum(nil)), nil
}

func narNode(w io.Writer, path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	switch {
	case info.Mode().IsRegular():
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if info.Mode()&0o100 != 0 {
			return narString(w, "(", "type", "regular", "executable", "", "contents", string(content), ")")
		}
		return narString(w, "(", "type", "regular", "contents", string(content), ")")

	case info.Mode()&os.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return narString(w, "(", "type", "symlink", "target", target, ")")

	case info.IsDir():
		entries, err := os.ReadDir(path) // sorted by name, as the format wants it
		if err != nil {
			return err
		}
		if err := narString(w, "(", "type", "directory"); err != nil {
			return err
		}
		for _, entry := range entries {
			if err := narString(w, "entry", "(", "name", entry.Name(), "node"); err != nil {
				return err
			}
			if err := narNode(w, filepath.Join(path, entry.Name())); err != nil {
				return err
			}
			if err := narString(w, ")"); err != nil {
				return err
			}
		}
		return narString(w, ")")
	}
	return fmt.Errorf("%s: an archive cannot hold a file of type %s", path, info.Mode().Type())
}

// narString writes each string as its length in eight bytes, itself, and zeros up to the next multiple of eight.
func narString(w io.Writer, values ...string) error {
	for _, s := range values {
		if err := binary.Write(w, binary.LittleEndian, uint64(len(s))); err != nil {
			return err
		}
		if _, err := io.WriteString(w, s); err != nil {
			return err
		}
		if _, err := w.Write(make([]byte, -len(s)&7)); err != nil {
			return err
		}
	}
	return nil
}

// The expected values are what `nix hash path` printed for the same trees.
func TestNARHash(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	assert.NilError(t, os.MkdirAll(filepath.Join(tree, "sub", "empty"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(tree, "plain.txt"), []byte("eight by"), 0o644))
	assert.NilError(t, os.WriteFile(filepath.Join(tree, "sub", "script"), []byte("#!/bin/sh\n"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(tree, "sub.txt"), nil, 0o600)) // as a path it sorts before sub/script, as an entry after sub
	assert.NilError(t, os.Symlink("sub/script", filepath.Join(tree, "link")))

	for path, want := range map[string]string{
		tree:                             "sha256-4Kn7GY0lMc7ylK7Dg+xB0xoxGzq3RJKWamo225UOsg8=",
		filepath.Join(tree, "plain.txt"): "sha256-AJ+vCaV9Kjrf6txrd7R5r3a5m+LO0Dgrm2WYXcoUQ6s=",
		filepath.Join(tree, "sub"):       "sha256-awDbRF54uKe2XYFj1qL07wkDJnhacni1MCQ1AAXr/e4=",
		filepath.Join(tree, "link"):      "sha256-Kd3xr01VRVnACNKpNtNHjPxlzKOLd7fwhhdFb0Yusdc=",
	} {
		got, err := narHash(path)
		assert.NilError(t, err)
		assert.Equal(t, got, want, path)
	}
}
