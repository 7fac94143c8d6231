#!/usr/bin/env bash
# Builds and pushes the image to $KO_DOCKER_REPO and prints the manifests on standard input with its digest in the place of ko://.
#
#   kubectl kustomize k8s | .github/resolve.sh                         what `just render` does
#   kubectl kustomize k8s | .github/resolve.sh --push=false --tags=    only shows it
#
# The same source, base and versions of Go and ko give the same digest on every machine. For that the Go here is used for its
# version alone, and the compiler is the one that go.dev publishes under it, which the Go command downloads and checks against the
# checksum database: nixpkgs' own has store paths patched into `time`, `net` and `mime`, others on each system.
set -euo pipefail
cd "$(dirname "$0")/.."

release=golang.org/toolchain@v0.0.1-$(go env GOVERSION).$(go env GOHOSTOS)-$(go env GOHOSTARCH)
go mod download "$release"
toolchain=$(go env GOMODCACHE)/$release
find "$toolchain/bin" "$toolchain/pkg/tool" -type f ! -perm -u+x -exec chmod +x {} + # a module's archive knows no modes
export KO_GO_PATH=$toolchain/bin/go

# What else would change the binary, and the date of Nix, which would become the image's.
unset GOAMD64 GOARM64 GOEXPERIMENT GOFIPS140 SOURCE_DATE_EPOCH

labels=org.opencontainers.image.source=https://$(GOWORK=off go list -m)
labels+=,org.opencontainers.image.version=$(<cmd/anthropic-oauth-proxy/VERSION)
exec ko resolve --bare --image-label "$labels" "$@" -f -
