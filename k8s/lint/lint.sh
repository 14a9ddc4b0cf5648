#!/usr/bin/env bash
# `make lint-deploy`: checks what deploys Souk. k8s/ and argocd/ by the schemas of Kubernetes and of the custom resources, and by
# kube-score; .github/ by actionlint and zizmor. Its tools are installed in these versions into .dev/tools/deploy; Go's caches are
# removed afterwards.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$PWD/.dev/tools/deploy

kubernetes=v1.34.0
overlays=(dev production gateway-api istio)
programs=(
  sigs.k8s.io/kustomize/kustomize/v5@v5.7.1
  github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0
  github.com/zegl/kube-score/cmd/kube-score@v1.20.0
  github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
)
# The modules that contain custom resources, and where.
resources=(
  "github.com/cert-manager/cert-manager@v1.21.2 deploy/crds"
  "sigs.k8s.io/gateway-api@v1.6.3 config/crd/standard"
  "istio.io/api@v1.32.0 kubernetes"
  "github.com/argoproj/argo-cd/v3@v3.5.7 manifests/crds"
)
# kubernetes-validate has the schemas of Kubernetes itself.
packages=(zizmor==1.32.0 kubernetes-validate==1.37.0)

# Findings of kube-score that are accepted everywhere, and why.
accepted=(
  # Images have the tag of a release, and tags of releases are not moved.
  container-image-pull-policy
  # They prefer other nodes and zones, and still start where there is one node.
  deployment-has-host-podantiaffinity
  # Liveness is about the process alone, readiness about whether it serves: they are different questions.
  pod-probes-identical
)

install() {
  local half=$tools.half
  rm -rf "$half" "$tools"
  mkdir -p "$half/bin" "$half/schemas"
  export GOPATH=$half/go GOCACHE=$half/cache GOBIN=$half/bin GOFLAGS=-modcacherw
  for program in "${programs[@]}"; do
    echo "building $program"
    go install "$program"
  done
  python3 -m venv "$tools"
  "$tools/bin/pip" install -q --disable-pip-version-check "${packages[@]}"
  local schemas=() resource module folder
  for resource in "${resources[@]}"; do
    read -r module folder <<<"$resource"
    go mod download "$module"
    schemas+=("$(go env GOMODCACHE)/$module/$folder"/*.yaml)
  done
  schemas+=("$tools"/lib/python3*/site-packages/kubernetes_validate/kubernetes-json-schema/$kubernetes-local-strict/*.json)
  "$tools/bin/python" k8s/lint/schemas.py "$half/schemas" "${schemas[@]}"
  "$tools/bin/pip" uninstall -q -y kubernetes-validate
  mv "$half/schemas" "$tools/schemas"
  mv "$half/bin"/* "$tools/bin/"
  rm -rf "$half"
}

step() {
  echo "== $1"
  shift
  "$@"
}

wanted="$kubernetes ${programs[*]} ${resources[*]} ${packages[*]}"
if [ "$(cat "$tools/versions" 2>/dev/null)" != "$wanted" ]; then
  install
  echo "$wanted" > "$tools/versions"
fi
PATH=$tools/bin:$PATH
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT

conform=(kubeconform -strict -summary -schema-location "$tools/schemas/{{.ResourceKind}}{{.KindSuffix}}.json"
  -schema-location "$tools/schemas/{{.ResourceKind}}-{{.Group}}-{{.ResourceAPIVersion}}.json")
# No limits of CPU: they throttle, so roles and the edge would miss their deadlines while the node is idle.
score=(kube-score score --kubernetes-version v1.34 --output-format ci --ignore-container-cpu-limit)
for test in "${accepted[@]}"; do score+=(--ignore-test "$test"); done

for overlay in "${overlays[@]}"; do
  step "k8s/overlays/$overlay: kustomize" kustomize build "k8s/overlays/$overlay" -o "$rendered/$overlay.yaml"
  step "k8s/overlays/$overlay: kubeconform" "${conform[@]}" "$rendered/$overlay.yaml"
done
step "argocd: kubeconform" "${conform[@]}" argocd/*.yaml
# Not dev: its servers have one replica each, on purpose.
for overlay in production gateway-api istio; do
  step "k8s/overlays/$overlay: kube-score" "${score[@]}" "$rendered/$overlay.yaml"
done
step ".github: actionlint" actionlint -color=false
step ".github: zizmor" zizmor --offline --persona pedantic --quiet .github
