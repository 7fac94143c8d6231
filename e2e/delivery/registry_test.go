package delivery

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/basher83/anthropic-oauth-proxy/e2e/standin"
)

const (
	nonroot      = 65532 // distroless' unprivileged user
	upstreamName = "api.anthropic.com"
	baseLayers   = 1
)

// platforms are the ones that .ko.yaml must build for.
var platforms = []v1.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}}

// registryHost returns the address of a registry in this process. It already has the base image, as "base".
var registryHost = sync.OnceValues(func() (string, error) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	host := strings.TrimPrefix(server.URL, "http://")
	if err := pushBase(host + "/base"); err != nil {
		return "", fmt.Errorf("push the base image: %w", err)
	}
	return host, nil
})

// pushBase makes a base image with what the proxy needs from distroless/static:nonroot: a user, a home, a /tmp, and certificates. Its
// only authority is the tests', so a container on this base can speak TLS only to the stand-in.
func pushBase(reference string) error {
	trusted, err := upstreamAuthority()
	if err != nil {
		return err
	}
	layer, err := baseLayer(trusted.PEM)
	if err != nil {
		return err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range platforms {
		image, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), &v1.ConfigFile{
			OS: platform.OS, Architecture: platform.Architecture,
			Config: v1.Config{
				User:       fmt.Sprint(nonroot),
				WorkingDir: "/home/nonroot",
				Env:        []string{"PATH=/usr/bin:/bin", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"},
			},
		})
		if err != nil {
			return err
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &platform}})
	}
	ref, err := name.ParseReference(reference)
	if err != nil {
		return err
	}
	return remote.WriteIndex(ref, index)
}

func baseLayer(certificates []byte) (v1.Layer, error) {
	files := []struct {
		header  tar.Header
		content string
	}{
		{tar.Header{Name: "etc/", Mode: 0o755}, ""},
		{tar.Header{Name: "etc/passwd", Mode: 0o644}, "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n"},
		{tar.Header{Name: "etc/group", Mode: 0o644}, "root:x:0:\nnonroot:x:65532:\n"},
		{tar.Header{Name: "etc/ssl/certs/", Mode: 0o755}, ""},
		{tar.Header{Name: "etc/ssl/certs/ca-certificates.crt", Mode: 0o644}, string(certificates)},
		{tar.Header{Name: "home/nonroot/", Mode: 0o700, Uid: nonroot, Gid: nonroot}, ""},
		{tar.Header{Name: "tmp/", Mode: 0o1777}, ""},
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, file := range files {
		file.header.Typeflag = tar.TypeReg
		if strings.HasSuffix(file.header.Name, "/") {
			file.header.Typeflag = tar.TypeDir
		}
		file.header.Size = int64(len(file.content))
		if err := w.WriteHeader(&file.header); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, file.content); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
}

// upstreamAuthority is the only authority that the base image trusts.
var upstreamAuthority = sync.OnceValues(standin.NewAuthority)
