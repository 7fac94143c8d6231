# Every line of a recipe also works when typed. `nix develop` provides all tools that the recipes call.

set shell := ["bash", "-euo", "pipefail", "-c"]

namespace := "anthropic-oauth-proxy"

# List the recipes.
default:
    @just --list --unsorted

# Serve 127.0.0.1:8080 with the built-in defaults, or with the given flags.
run *flags:
    go run ./cmd/anthropic-oauth-proxy {{ flags }}

# Run the tests.
test:
    go test ./...

# Run the tests under the race detector.
race:
    go test -race ./...

# Run the tests of the delivery path, real clients, rollouts, migration and monitoring (second module, slow).
e2e:
    go test -C e2e -count=1 -timeout 20m ./...

# Compare the proxy's cost with nginx, HAProxy, Caddy and a bare ReverseProxy (Linux, two CPUs, about a quarter of an hour).
bench rounds="6" which=".":
    for _ in $(seq {{ rounds }}); do go test -C e2e -run '^$' -bench '{{ which }}' -benchtime 1x -timeout 20m ./bench; done | tee bench.txt
    go run golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da -table .name -col '/proxy@(nginx ours ReverseProxy haproxy caddy direct)' bench.txt

# Run a mixed load with faults for some minutes under the Deployment's memory limit, and report (Linux, root).
soak minutes="20" *flags:
    go run -C e2e ./soak -minutes {{ minutes }} {{ flags }}

# Fuzz every target for the given time each.
fuzz time="30s":
    go test -run '^$' -fuzz FuzzWire -fuzztime {{ time }} -fuzzminimizetime 10x -parallel 1 ./cmd/anthropic-oauth-proxy
    go test -run '^$' -fuzz FuzzJoin -fuzztime {{ time }} ./internal/target
    go test -run '^$' -fuzz FuzzRules -fuzztime {{ time }} ./internal/proxy
    go test -run '^$' -fuzz FuzzLoad -fuzztime {{ time }} ./internal/config

# Format the tree.
fmt:
    treefmt

# Check format and lint without running anything, as CI does.
lint:
    bash .ci/run lint

# Run all checks that a change must pass, as CI does.
check:
    bash .ci/run

# Rewrite vendorHash in flake.nix after a change of go.mod.
vendor-hash:
    go test -C e2e ./flake -run TestVendorHash -count=1 -write

# Show and check the flake.
flake:
    nix flake show
    nix flake check

# Print the manifests with image digests in place (builds the image and pushes it to $KO_DOCKER_REPO).
render *flags:
    kubectl kustomize k8s | .github/resolve.sh {{ flags }}

# Follow the proxy's log in the cluster.
logs:
    kubectl -n {{ namespace }} logs -f deployment/oauth-proxy

# Show what runs in the cluster, and whether the tailnet device is up.
status:
    kubectl -n {{ namespace }} get deployment,pod,service,networkpolicy -o wide
    kubectl -n {{ namespace }} get service oauth-proxy -o jsonpath='{range .status.conditions[*]}{.type}={.status} {.message}{"\n"}{end}'

# Restart the pod and wait; running answers finish on the old one.
rollout:
    kubectl -n {{ namespace }} rollout restart deployment/oauth-proxy
    kubectl -n {{ namespace }} rollout status deployment/oauth-proxy
