# Two commands do everything on a fresh Debian machine, as root: `make demo` and `make test`.
.DEFAULT_GOAL := help
.PHONY: help install build images demo test check bench sim mutants clean

SKEP := target/release/skep

help: ## Show what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: ## Install what build, demo and tests need (Debian packages)
	@scripts/install.sh

build: install ## Build the skep binary
	@echo "==> building skep"
	cargo build --release --locked --bin skep

images: install ## Build the demo images from Debian packages
	@images/build.sh

demo: build images ## From nothing to a site on http://localhost:8080: three nodes, WordPress, Galera
	@scripts/demo.sh $(SKEP)

test: ## Install what is needed and run all tests
	@scripts/install.sh --tests
	@images/build.sh
	@echo "==> building"
	cargo build --locked --workspace --all-targets
	@echo "==> testing"
	cargo nextest run --locked --workspace

check: install ## Format, lints and docs
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --locked --workspace --no-deps

bench: build images ## Measure: each figure is a ratio within one run
	cargo run --release --locked -p e2e --bin bench
	cargo bench --locked -p linux --bench many
	cargo bench --locked -p manager --bench push
	cargo bench --locked -p planner --bench plan

sim: ## Simulate clusters in which everything breaks: SEEDS=0..1000, or SEED=7 for one
	@cargo run --release --locked --quiet -p sim -- $(or $(SEED),$(SEEDS),0..1000)

mutants: ## Take one rule out of a copy of the tree at a time: does anybody notice?
	@scripts/mutants.sh

clean: ## Take the lab down and remove what was built
	@[ ! -x $(SKEP) ] || $(SKEP) lab down
	cargo clean
