#!/usr/bin/env bash
# Builds the image and pushes it to $KO_DOCKER_REPO. Prints the manifests from standard input, with the image's digest instead of ko://.
#
#   kubectl kustomize k8s | .github/resolve.sh                         what `just render` does
#   kubectl kustomize k8s | .github/resolve.sh --push=false --tags=    only shows it
#
# The same source, base and versions of Go and ko give the same digest on every machine. So this script uses only the version number of
# the installed Go. The compiler is the one that go.dev publishes for that version. The Go command downloads it and checks it against
# the checksum database. (nixpkgs patches store paths into `time`, `net` and `mime`, and they differ between systems.)
set -euo pipefail
cd "$(dirname "$0")/.."

# These would change the binary: flags, settings of `go env -w`, and the environment's CPU and experiments. SOURCE_DATE_EPOCH, which
# Nix sets, would become the image's date.
export GOENV=off GOFLAGS=
unset GOAMD64 GOARM64 GOEXPERIMENT GOFIPS140 SOURCE_DATE_EPOCH

release=golang.org/toolchain@v0.0.1-$(go env GOVERSION).$(go env GOHOSTOS)-$(go env GOHOSTARCH)
go mod download "$release"
toolchain=$(go env GOMODCACHE)/$release
find "$toolchain/bin" "$toolchain/pkg/tool" -type f ! -perm -u+x -exec chmod +x {} + # a module's archive has no file modes
export KO_GO_PATH=$toolchain/bin/go

# GHCR links the image to the repository that this label names. In CI it is the repository itself, which may be a fork. Elsewhere it is
# the module path in go.mod.
source=${GITHUB_REPOSITORY:+github.com/$GITHUB_REPOSITORY}
labels=org.opencontainers.image.source=https://${source:-$(GOWORK=off go list -m)}
labels+=,org.opencontainers.image.version=$(<cmd/anthropic-oauth-proxy/VERSION)
exec ko resolve --bare --image-label "$labels" "$@" -f -
