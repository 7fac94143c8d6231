#!/usr/bin/env bash
# Builds and pushes the image to $KO_DOCKER_REPO and prints the manifests on standard input with its digest in the place of ko://.
#
#   kubectl kustomize k8s | .github/resolve.sh                         what `just render` does
#   kubectl kustomize k8s | .github/resolve.sh --push=false --tags=    only shows it
#
# The same source, base and versions of Go and ko give the same digest on every machine. So the Go that is installed here only says
# its version. The compiler is the one that go.dev publishes for that version; the Go command downloads it and checks it against the
# checksum database. (nixpkgs patches store paths into `time`, `net` and `mime`, different ones on each system.)
set -euo pipefail
cd "$(dirname "$0")/.."

# What would change the binary: flags, what `go env -w` wrote into the home, and the CPU and experiments of the environment.
# SOURCE_DATE_EPOCH, which Nix sets, would become the image's date.
export GOENV=off GOFLAGS=
unset GOAMD64 GOARM64 GOEXPERIMENT GOFIPS140 SOURCE_DATE_EPOCH

release=golang.org/toolchain@v0.0.1-$(go env GOVERSION).$(go env GOHOSTOS)-$(go env GOHOSTARCH)
go mod download "$release"
toolchain=$(go env GOMODCACHE)/$release
find "$toolchain/bin" "$toolchain/pkg/tool" -type f ! -perm -u+x -exec chmod +x {} + # a module's archive knows no modes
export KO_GO_PATH=$toolchain/bin/go

# GHCR links the image to the repository that this label names. CI knows the name, and a fork has its own. At a desk it is go.mod's.
source=${GITHUB_REPOSITORY:+github.com/$GITHUB_REPOSITORY}
labels=org.opencontainers.image.source=https://${source:-$(GOWORK=off go list -m)}
labels+=,org.opencontainers.image.version=$(<cmd/anthropic-oauth-proxy/VERSION)
exec ko resolve --bare --image-label "$labels" "$@" -f -
