# Entry points. The programs behind them are in `dev/`.

.PHONY: help up test test-servers faults abuse bugs bench flash reads security check-bench prepare fmt

help:
	@echo "make up            start everything on this machine, and buy something"
	@echo "make test          check and test everything"
	@echo "make test-servers  start the servers that \`cargo test -p NAME\` needs, until Ctrl-C"
	@echo "make faults        inject faults under load, and check the invariants (SEED=n PAIRS=n)"
	@echo "make abuse         attack the edge from one address, and measure another client meanwhile"
	@echo "make bugs          plant bugs, and check that a test fails for each (ONLY=a,b)"
	@echo "make bench         measure the throughput and cost of orders"
	@echo "make flash         measure a flash sale: orders of one SKU, compared with orders of a thousand"
	@echo "make reads         measure reads through the edge, compared with reads at the role"
	@echo "make security      measure what the edge's filters, TLS, exact limits and credentials cost"
	@echo "make check-bench   measure the time and memory of \`souk check\` over a million orders (ORDERS=n)"
	@echo "make prepare       regenerate .sqlx, after a query or a migration changed"
	@echo "make fmt           format the code"

# Compilers are installed here, before our own installer can be built. Without root, the message names all packages at once.
NEEDS := build-essential pkg-config libssl-dev protobuf-compiler libprotobuf-dev postgresql redis-server default-jre-headless maven python3-venv
define ensure_compilers
	@for program in cc c++ pkg-config protoc; do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	pkg-config --exists openssl 2>/dev/null || missing="$$missing libssl-dev"; \
	[ -z "$$missing" ] || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "installing$$missing"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends build-essential pkg-config libssl-dev protobuf-compiler libprotobuf-dev; \
	else \
	  echo "missing:$$missing. On Debian or Ubuntu, this is everything: sudo apt-get install $(NEEDS)"; exit 1; \
	fi
endef

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

faults:
	$(ensure_compilers)
	cargo build --release -p souk -p provider -p stack -p trials
	@target/release/trials faults --table docs/faults.md

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

fmt:
	cargo fmt --all
