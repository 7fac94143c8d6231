#!/usr/bin/env bash
# Puts the manifest from standard input into the folder k8s/ of the branch `deploy`, which Argo CD syncs. It writes git's objects
# directly, so it needs no second checkout and does not change this one.
#
#   just render | .github/push-deploy.sh             needs the right to push to origin
#   just render | .github/push-deploy.sh --dry-run   only shows what would change
#
# It pushes nothing if nothing changed, or if this checkout is not the head of main: a re-run of an old publish must not roll the
# cluster back.
set -euo pipefail

branch=deploy
manifest=$(cat)

images=$(grep -E '^[ -]*image: ' <<<"$manifest" || true)
if [ -z "$images" ]; then
  echo "push-deploy: the manifest names no image. Is the output of \`just render\` on standard input?" >&2
  exit 1
fi
if unpinned=$(grep -vE '@sha256:[0-9a-f]{64}$' <<<"$images"); then
  echo "push-deploy: every image must be pinned by its digest, as \`just render\` does. These are not:" >&2
  echo "$unpinned" >&2
  exit 1
fi

manifest=$(git hash-object -w --stdin <<<"$manifest")
kustomization=$(
  git hash-object -w --stdin <<'EOF'
# Rendered from k8s/ of the branch main, where every change belongs. The next push there overwrites this folder.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
  - manifest.yaml
EOF
)
folder=$(printf '100644 blob %s\t%s\n' "$kustomization" kustomization.yaml "$manifest" manifest.yaml | git mktree)
tree=$(printf '040000 tree %s\tk8s\n' "$folder" | git mktree)

parent=
before=$(git mktree </dev/null)
if [ -n "$(git ls-remote origin "refs/heads/$branch")" ]; then
  git fetch --quiet --depth 1 origin "refs/heads/$branch"
  parent=$(git rev-parse FETCH_HEAD)
  before=$(git rev-parse "FETCH_HEAD^{tree}")
fi
if git --no-pager diff --exit-code "$before" "$tree"; then
  echo "push-deploy: nothing changed on the branch $branch"
  exit 0
fi
if [ "${1-}" = --dry-run ]; then
  echo "push-deploy: this would be pushed to the branch $branch"
  exit 0
fi

here=$(git rev-parse HEAD)
main=$(git ls-remote origin refs/heads/main | cut -f 1)
if [ "$here" != "$main" ]; then
  echo "${GITHUB_ACTIONS:+::notice::}push-deploy: nothing pushed, the branch $branch stays as it is: this is $here, but main is at ${main:-nothing}"
  exit 0
fi
commit=$(git commit-tree "$tree" ${parent:+-p "$parent"} -m "deploy: render $here")
git push --quiet origin "$commit:refs/heads/$branch"
echo "push-deploy: pushed $commit to the branch $branch"
