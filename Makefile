# The whole interface of this repository: `make` lists it. Everything else here is for these targets.

# One NATS server for all that start one (`pcluster dev`, the tests, the benchmarks): the one that setup provides, unless the
# caller's environment names another.
PCLUSTER_NATS_SERVER ?= $(CURDIR)/.tools/bin/nats-server
export PCLUSTER_NATS_SERVER

# A folder of plugins/ with a Cargo.toml is a package of the same name.
plugins := $(notdir $(patsubst %/Cargo.toml,%,$(wildcard plugins/*/Cargo.toml)))
plugin_packages := $(addprefix -p ,$(plugins))

# How many tests of one program run at once. The end-to-end tests mostly wait: one for each core would leave the cores idle.
units ends: export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))

# The steps build on each other, and cargo uses all cores anyway.
.NOTPARALLEL:
.PHONY: help setup compilers plugins python javascript demo test tools built units documented ends chaos check form lints bench clean first-build

help: ## list the targets (the default)
	@awk -F ':[^#]*## ' '/^[a-z]+:.*## / { printf "  make %-9s%s\n", $$1, $$2 }' Makefile

setup: ## find or install what is missing: a NATS server, the Rust target for plugins
	@.make/nats-server
	@.make/wasm-target

compilers: ## find or download the compilers of other languages that the tests use: zig, Go, AssemblyScript's
	@.make/ziglang
	@.make/go
	@.make/assemblyscript

# Always into ./target, whatever CARGO_TARGET_DIR says, because the example manifests name the results by their path.
plugins: setup ## compile the example plugins to target/wasm32-wasip1/release/*.wasm
	cargo build --release --target wasm32-wasip1 --target-dir target $(plugin_packages)

# The unit tests need no plugin, and the end-to-end tests build their own.
python: ## build the interpreter for tasks in Python, the example plugin, and run their unit tests
	@.make/python-engine
	cd sdk/python && PYTHONPATH=src python3 -m unittest discover --quiet tests
	PYTHONPATH=sdk/python/src python3 -m pcluster.build plugins/orders -o plugins/orders/build/orders.wasm
	cd plugins/orders && PYTHONPATH=../../sdk/python/src python3 -m unittest --quiet

javascript: ## build the interpreter for tasks in JavaScript, the example plugin, and run their unit tests
	@.make/quickjs-engine
	@.make/javascript
	cd sdk/js && NODE_PATH=$(CURDIR)/.tools/npm/node_modules ../../.tools/bin/node --test test/
	$(MAKE) --no-print-directory -C plugins/typescript all test

demo: setup first-build plugins ## run a chain from start to end on this machine
	.make/pcluster dev plugins/waiting/chain.toml --feed "hello world!" --feed "hello world!" --until-empty

test: setup tools first-build plugins ## run all tests
	@$(MAKE) --no-print-directory --keep-going units documented ends

# The pieces of `make test` and `make check`, some of which `.ci/run` runs side by side.
tools: compilers python javascript

built: setup plugins
	cargo test --workspace --no-run

units:
	cargo test --workspace --no-fail-fast --lib --bins --examples

documented:
	cargo test --workspace --no-fail-fast --doc

ends:
	cargo test --workspace --no-fail-fast --test '*'

chaos: setup first-build plugins ## kill, pause and restart nodes and server at random while items run: DURATION=10m SEED=7 PROGRAMS=1s LARGE=1 SERVERS=3 RECORDS=1 WORLD=1
	DURATION=$(DURATION) SEED=$(SEED) ONLY=$(ONLY) ITEMS=$(ITEMS) PROGRAMS=$(PROGRAMS) LARGE=$(LARGE) SERVERS=$(SERVERS) RECORDS=$(RECORDS) WORLD=$(WORLD) cargo bench --profile dev -p pcluster --bench chaos

check: setup form lints ## check formatting, words, lints and documentation

form:
	.make/words
	cargo fmt --all --check
	cargo fmt --check --manifest-path sdk/python/driver/Cargo.toml
	cargo fmt --check --manifest-path sdk/python/flatten/Cargo.toml

# Gives way to tests that run meanwhile, since some of them say how long something may take.
lints:
	nice -n 19 cargo clippy --locked --workspace --all-targets -- -D warnings
	nice -n 19 cargo clippy --locked --target wasm32-wasip1 $(plugin_packages) -- -D warnings
	RUSTDOCFLAGS="-D warnings" nice -n 19 cargo doc --workspace --no-deps

bench: setup plugins ## run the benchmarks (builds everything optimized, which takes long the first time): ONLY="w1 latency --quick"
	cargo bench -p pcluster --bench bench -- $(ONLY)

clean: ## remove all that was built or downloaded into this folder
	cargo clean
	rm -rf target .tools

first-build:
	@test -d "$${CARGO_TARGET_DIR:-target}/debug/deps" || echo "first build: about 4 minutes on two cores, later ones take seconds"
