#!/usr/bin/env bash
# Deploys k8s/ to a throw-away cluster and keeps a stream open during a rollout and a restart of the container runtime. The stream must
# survive both. The old pod must end when the stream has ended. A pod that is not the Tailscale Operator's must not get a connection.
#
#   nix develop -c e2e/kind/check.sh      needs a Docker engine; changes nothing outside the cluster
set -euo pipefail
cd "$(dirname "$0")/../.."

namespace=anthropic-oauth-proxy
export KIND_CLUSTER_NAME=anthropic-oauth-proxy-check
export KO_DOCKER_REPO=kind.local # ko loads what it builds into the cluster's node
work=$(mktemp -d)
export KUBECONFIG=$work/kubeconfig

step() { printf '\n== %s\n' "$*"; }

finish() {
  code=$?
  if [ "$code" != 0 ]; then
    step "failed; the cluster's state:"
    kubectl get pods --all-namespaces --output wide || true
    kubectl events --namespace "$namespace" || true
    for selector in $namespace,app.kubernetes.io/name=oauth-proxy probe,app=upstream tailscale,job-name=stream probe,job-name=stranger; do
      step "logs of ${selector#*,}"
      kubectl logs --namespace "${selector%%,*}" --selector "${selector#*,}" --tail 50 --prefix || true
    done
  fi
  kind delete cluster || true
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT

complete() { kubectl wait --namespace "$1" --for condition=complete "job/$2" --timeout "$3"; }

step "a cluster"
kind create cluster --wait 180s

step "the images: the proxy by .ko.yaml, the probe on the same base"
platform=linux/$(go env GOARCH)
kubectl kustomize e2e/kind/overlay | ko resolve --platform "$platform" -f - >"$work/proxy.yaml"
base=$(sed -n 's/^defaultBaseImage: //p' .ko.yaml)
(cd e2e && KO_DEFAULTBASEIMAGE=$base CGO_ENABLED=0 ko resolve --platform "$platform" -f kind/probe.yaml) >"$work/probe.yaml"

step "the upstream, then the proxy"
kubectl apply -f "$work/probe.yaml" --selector step=upstream
kubectl rollout status --namespace probe deployment/upstream --timeout 120s
kubectl apply -f "$work/proxy.yaml"
kubectl rollout status --namespace "$namespace" deployment/oauth-proxy --timeout 120s
old=$(kubectl get pods --namespace "$namespace" --output name)

step "a stream, from where the operator's pod would be"
kubectl apply -f "$work/probe.yaml" --selector step=stream
kubectl wait --namespace tailscale --for jsonpath='{.status.ready}'=1 job/stream --timeout 120s
# grep exits at the first match, which ends the wait. If the client fails, the log ends without a match.
grep --max-count 1 'the first event' <(kubectl logs --namespace tailscale --follow job/stream)

step "a rollout while the stream is open"
kubectl rollout restart --namespace "$namespace" deployment/oauth-proxy
kubectl rollout status --namespace "$namespace" deployment/oauth-proxy --timeout 120s

step "a restart of the container runtime: the kubelet sends the draining container a second SIGTERM"
stops() {
  kubectl get events --namespace "$namespace" --field-selector "reason=Killing,involvedObject.name=${old#pod/}" \
    --output jsonpath='{range .items[*]}{.count}{"\n"}{end}' | awk '{ sum += $1 } END { print sum + 0 }'
}
before=$(stops)
docker exec "$KIND_CLUSTER_NAME-control-plane" systemctl restart containerd
kubectl wait --for condition=Ready node --all --timeout 120s
for ((n = 0; $(stops) <= before; n++)); do
  [ "$n" -lt 120 ] || {
    echo "the kubelet has not stopped the old pod's container again" >&2
    exit 1
  }
  sleep 1
done
sleep 20 # preStop takes 10 s, and the signal follows it
[ "$(kubectl get --namespace tailscale job/stream --output jsonpath='{.status.active}{.status.failed}')" = 1 ]
kubectl get --namespace "$namespace" "$old"

step "the end of the stream"
kubectl apply -f "$work/probe.yaml" --selector step=release
complete probe release 60s
complete tailscale stream 60s

step "the end of the old pod: its last stream has ended, so it must not wait its full 600 seconds"
kubectl wait --namespace "$namespace" --for delete "$old" --timeout 60s

step "a pod that must not get in"
kubectl apply -f "$work/probe.yaml" --selector step=stranger
complete probe stranger 60s

step "passed"
