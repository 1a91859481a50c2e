# Every verb is a line in `make help`. CI runs `.ci/run`, which calls these.
.DEFAULT_GOAL := help
.PHONY: help build images demo check test node-test kind-test bench bench-control bench-lookup test-tools crds golden chart-docs chart-snapshots docs fuzz fuzz-check fmt lint ci clean

CARGO ?= cargo

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Release binaries in target/release
	$(CARGO) build --release --package ws-ingress

images: ## The images, in Docker's store if there is Docker, and as archives in target/images (IMAGES=docker.io/ws-ingress, VERSION=)
	.ci/images

demo: ## ws-ingress, a backend and a page at https://localhost:8443/; Ctrl-C ends (ports: WS_INGRESS_HTTPS_PORT, _HTTP_PORT, _STATUS_PORT)
	@examples/demo/run

check: lint ## Inner loop: formatting, clippy and unit tests
	$(CARGO) test --workspace --exclude tests --lib --bins

test: ## Everything, with real clients, backends and a Kubernetes API server (KUBERNETES=1.33.13 picks another); says what was skipped
	@.ci/test

node-test: ## The chart and the images on a Kubernetes node that this starts and ends (root, Linux); TEST=rollouts picks some
	tests/kubernetes/node-test

kind-test: ## The same on kind, where there is Docker
	tests/kubernetes/kind-test

bench: ## CPU and memory beside nginx, HAProxy, Envoy and Caddy, most of an hour on a quiet machine (BENCH="--rounds 1 --seconds 0.5" tries it)
	-tests/tools/install nginx haproxy envoy caddy
	$(CARGO) build --release --package ws-ingress
	$(CARGO) bench --package tests --bench relay -- $(BENCH)

bench-control: ## From a change in the Kubernetes API to a swapped table: time, bytes, memory (BENCH_ROUTES="10 1000 10000")
	tests/tools/install
	$(CARGO) build --release --workspace --bins
	$(CARGO) bench --package tests --bench control

bench-lookup: ## From a request to its rule: nanoseconds by the number of routes, and at the limit of conditions
	$(CARGO) bench --package route-table --bench lookup

test-tools: ## Install what the end-to-end tests run beside Rust (Python, Node, a browser, kubectl, kube-apiserver)
	tests/tools/install

crds: ## Write crds/*.yaml, and the chart's copies, from the types
	for kind in websocketroutes externalbackends; do \
		touch crds/$$kind.yaml; \
		$(CARGO) run --quiet --package crds --bin crdgen $$kind > crds/$$kind.yaml.new || exit 1; \
		mv crds/$$kind.yaml.new crds/$$kind.yaml; \
		cp crds/$$kind.yaml charts/ws-ingress/files/$$kind.yaml; \
	done

golden: ## Write the expected results in controller/testdata; review the diff
	UPDATE_GOLDEN=1 $(CARGO) test --package controller --lib golden

chart-docs: ## Write the table of values in the chart's README
	UPDATE_GOLDEN=1 $(CARGO) test --package tests --test chart_values the_readme_has_the_table_of_values

chart-snapshots: ## Write what the chart renders in each case of tests/chart; review the diff
	UPDATE_GOLDEN=1 $(CARGO) test --package tests --test chart every_case_renders_as_committed

docs: ## API documentation of all crates; warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items

fuzz-check: ## Compile the fuzz targets, so that they do not rot
	$(CARGO) check --locked --manifest-path dataplane/fuzz/Cargo.toml --target-dir target/fuzz

fuzz: ## Run each fuzz target for FUZZ_SECONDS (20); needs cargo-fuzz
	cd dataplane && for target in push_decode push_delta proxy_header; do \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --fuzz-dir fuzz $$target -- -max_total_time=$(or $(FUZZ_SECONDS),20) || exit 1; \
	done

fmt: ## Format the code
	$(CARGO) fmt --all

lint: ## Formatting, clippy with -D warnings, and one TLS stack
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --package tests --test node -- -D warnings
	.ci/one-tls-stack

ci: ## What CI runs, on a clean Debian machine with Rust
	.ci/run

clean: ## Remove what was built
	$(CARGO) clean
