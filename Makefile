# `make demo` and `make test` do all of their own set-up; `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
CARGO ?= cargo
SETUP := tests/services/setup.sh

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint build clean-services

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

demo: ## build Frazil and run its demo: nothing else needs to be installed
	@$(SETUP) build
	$(CARGO) run -- demo

test: ## install or fetch what the tests need, then run all of them: unit, simulation, integration
	@$(SETUP) build
	@$(SETUP) test
	$(CARGO) test --features testing --lib
	@# They wait more than they compute. What needs a JDK 25 runs where there is one.
	$(CARGO) test --features testing --test it -- --test-threads=4 $$(tests/services/trino.sh ready && echo --include-ignored)

bench: ## build for release and measure against a real broker and registry: prints each figure as a ratio
	@$(SETUP) build
	@$(SETUP) test
	$(CARGO) bench --bench decode --bench ingest --bench query --bench search --bench maintain

lint: ## formatting, clippy with and without the adapters, licences and duplicate versions of dependencies
	@$(SETUP) build
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --all-targets --features testing -- -D warnings
	$(CARGO) clippy --no-default-features -- -D warnings
	@tests/services/deny.sh

build: ## the binary, for release: target/release/frazil
	@$(SETUP) build
	$(CARGO) build --release

clean-services: ## remove everything that the set-up fetched for tests
	@tests/services/setup.sh clean
