# What people type. Everything else is in `dev`.

.PHONY: help up test test-servers bench flash prepare fmt

help:
	@echo "make up            start everything on this machine, and buy something"
	@echo "make test          check and test everything"
	@echo "make test-servers  start what \`cargo test -p NAME\` needs, until Ctrl-C"
	@echo "make bench         measure what orders cost here"
	@echo "make flash         measure a flash sale: one SKU that everybody wants, against a thousand"
	@echo "make prepare       write .sqlx anew, after a query or a migration changed"
	@echo "make fmt           format the code"

# The contracts need protoc to build, so it cannot be installed by what they build.
PROTOC := $(shell command -v protoc 2>/dev/null)
define ensure_protoc
	$(if $(PROTOC),,@echo "installing protoc"; apt-get update -qq && apt-get install -y -qq --no-install-recommends protobuf-compiler libprotobuf-dev)
endef

up:
	$(ensure_protoc)
	cargo build --release -p souk -p dev
	@exec target/release/dev up

test:
	$(ensure_protoc)
	cargo build -q -p dev
	@target/debug/dev test

test-servers:
	$(ensure_protoc)
	cargo build -q -p dev
	@exec target/debug/dev test-servers

bench:
	$(ensure_protoc)
	cargo build --release -p souk -p dev
	@target/release/dev bench

flash:
	$(ensure_protoc)
	cargo build --release -p souk -p dev
	@target/release/dev bench flash

prepare:
	$(ensure_protoc)
	cargo build -q -p dev
	@target/debug/dev prepare

fmt:
	cargo fmt --all
