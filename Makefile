# Upgrader Fleet: everything a developer types. `make help` lists it.
#
# All cargo calls share one profile (release), one feature set (--workspace) and one target folder outside of the
# checkout, so that triton-vm and neptune-consensus compile once: ten minutes each on two cores.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

cache := $(or $(UPGRADER_FLEET_CACHE),$(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME)/upgrader-fleet),$(HOME)/.cache/upgrader-fleet)
export UPGRADER_FLEET_CACHE := $(cache)
export CARGO_TARGET_DIR ?= $(cache)/target
# rustc overflows its stack on neptune-consensus without this; .cargo/config.toml says so too, for calls without make.
export RUST_MIN_STACK := 33554432
# A test that returns an error says why; thirty lines of where would hide it. Panics still tell both.
export RUST_LIB_BACKTRACE ?= 0

bin := $(CARGO_TARGET_DIR)/release
flags := --release --workspace --locked
images := $(cache)/images
version := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

cargo_deny_version := 0.20.2
cargo_deny := $(cache)/tools/bin/cargo-deny

neptune_version := 0.19.4
neptune_bin := $(cache)/tools/bin
neptune := $(addprefix $(neptune_bin)/neptune-,prover core cli)

##@ Use
.PHONY: demo
demo: build ## four upgraders, forty transactions, mock proofs, two processes killed; then the real proofs of a transaction
	$(bin)/fleet-demo

.PHONY: build
build: deps ## all binaries, into target/release of the cache
	cargo build $(flags)

.PHONY: install
install: build ## copies the binaries to $(PREFIX)/bin (default /usr/local)
	install -d "$(or $(PREFIX),/usr/local)/bin"
	install -m 0755 $(addprefix $(bin)/,prover-pod prover-proxy upgrader fleet operator dev-node) "$(or $(PREFIX),/usr/local)/bin"

##@ Check
.PHONY: test
test: deps cluster ## every test: unit, property, contract, real proofs, crashes, the operator on a real Kubernetes
	cargo build $(flags) --bins # the end-to-end tests run the real binaries
	cargo test $(flags) --no-fail-fast

.PHONY: test-node
test-node: deps real-node ## upgraders and prover-proxy with a real neptune-core and its neptune-prover
	cargo build $(flags) --bins
	cargo test $(flags) --test real_node --test real_prover -- --nocapture

.PHONY: lint
lint: deps fmt-check feature-sets clippy deny openapi-check generated-check ## formatting, clippy, dependencies, generated files

.PHONY: fmt-check
fmt-check:
	cargo fmt --all --check

.PHONY: clippy
clippy:
	cargo clippy $(flags) --all-targets -- -D warnings

.PHONY: feature-sets
feature-sets:
	scripts/feature-sets.py

.PHONY: deny
deny: $(cargo_deny) ## dependencies: bans, licences, sources
	$(cargo_deny) --locked --all-features check --hide-inclusion-graph bans licenses sources

.PHONY: openapi
openapi: build ## writes docs/openapi.json and docs/api.md from the code
	scripts/openapi.sh write "$(bin)/prover-pod"

.PHONY: openapi-check
openapi-check:
	cargo build $(flags) --bin prover-pod
	scripts/openapi.sh check "$(bin)/prover-pod"

.PHONY: generate
generate: ## writes crds/, the chart's role and alerts, docs/upgraderfleet.md, deploy/ and the stored renders of the chart
	cargo build $(flags) --bin operator
	scripts/generated.sh write "$(bin)/operator"
	@if command -v go >/dev/null; then tests/cluster/build.sh helm && WRITE_RENDERS=1 cargo test $(flags) --test chart renders::; else \
		echo 'generate: Go is missing, and with it helm: deploy/ and the renders of the chart are as before (https://go.dev/dl)'; fi

.PHONY: generated-check
generated-check:
	cargo build $(flags) --bin operator
	scripts/generated.sh check "$(bin)/operator"

.PHONY: cluster
cluster: ## a real Kubernetes control plane, helm and promtool for the tests, into the cache: built once, for minutes; needs Go
	@if command -v go >/dev/null; then tests/cluster/build.sh fake && tests/cluster/build.sh chart; else \
		echo 'cluster: Go is missing, so the tests that need a Kubernetes will be skipped (https://go.dev/dl)'; fi

.PHONY: e2e
e2e: build ## the images in pods on Kubernetes nodes of their own, from helm install to helm uninstall; needs root, Go and apt
	@if [[ $$(id -u) -eq 0 ]] && command -v go >/dev/null && command -v apt-get >/dev/null; then \
		scripts/deps.sh node && tests/cluster/build.sh real && \
		scripts/images.sh "$(bin)" localhost "$(version)" "$(cache)/cluster/images" dev-node && \
		UPGRADER_FLEET_E2E=1 cargo test $(flags) --test real -- --nocapture; else \
		echo 'e2e: skipped, it needs root, Go (https://go.dev/dl) and the apt of Debian or Ubuntu'; fi

.PHONY: images
images: build ## images of operator, upgrader and prover pod, $(REGISTRY)/NAME:$(VERSION), as archives and in docker if there
	scripts/images.sh "$(bin)" "$(or $(REGISTRY),localhost)" "$(or $(VERSION),$(version))" "$(images)"

.PHONY: images-check
images-check: ## runs the programs in their images, as containers would; needs no container engine, but root and apt
	@if [[ $$(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then \
		$(MAKE) --no-print-directory images && scripts/images-check.sh "$(images)"; else \
		echo 'images-check: skipped, it needs root and the apt of Debian or Ubuntu'; fi

##@ Measure
.PHONY: bench
bench: build ## what the service costs: overhead, enqueue latency, memory, proxy start
	$(bin)/fleet-bench

.PHONY: bench-operator
bench-operator: build cluster ## what the operator costs with FLEETS (1000) fleets on a real control plane: time, API calls, memory; needs Go
	$(bin)/operator-bench $(or $(FLEETS),1000)

##@ GPU
.PHONY: cuda-toolchain
cuda-toolchain: ## CUDA's compiler into the cache; no root and no GPU needed
	gpu-prover/scripts/cuda-toolchain.sh

.PHONY: gpu-test
gpu-test: build ## on a machine with a GPU: every kernel and whole proofs against the CPU prover, then the pod; REQUIRE_GPU=1 forbids skipping
	$(bin)/gpu-test
	cargo test $(flags) --test pod_device -- --nocapture --test-threads 1

.PHONY: gpu-archs
gpu-archs: cuda-toolchain ## compiles the kernels for every device of a release: 80, 90a, 100, 120 and PTX (slow, once)
	GPU_PROVER_ARCHS=80,90a,100,120 cargo build --release --locked -p gpu-prover

.PHONY: gpu-bench
gpu-bench: build ## on a machine with a GPU: time and memory of each stage
	$(bin)/gpu-bench

##@ Tools
.PHONY: deps
deps: ## what a bare Debian lacks (a C compiler), by apt, when missing and root
	@scripts/deps.sh build

.PHONY: real-node
real-node: $(neptune) ## the published neptune-core, its prover and command line into the cache: 45 minutes on two cores, once

$(neptune_bin)/neptune-%:
	scripts/deps.sh neptune
	CC=clang CXX=clang++ CMAKE_POLICY_VERSION_MINIMUM=3.5 CARGO_TARGET_DIR="$(cache)/target-neptune" \
		cargo install --version $(neptune_version) --locked --root "$(cache)/tools" \
		$(if $(filter cli,$*),neptune-core-cli,neptune-cash --bin neptune-$*)

$(cargo_deny):
	scripts/deps.sh build
	CARGO_TARGET_DIR="$(cache)/target-tools" \
		cargo install cargo-deny --version $(cargo_deny_version) --locked --root "$(cache)/tools"

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nCache: %s (move it with UPGRADER_FLEET_CACHE)\n' '$(cache)'
