# Everything that is done to this repository. `make demo` and `make test` need no set-up: on a
# fresh Debian machine with cargo, python3.11+ and apt they install the rest themselves.
#
#   make demo [ENGINE=vllm] [ARGS=...]   the main job, on real HTTP and real KV events
#   make check       inner loop: formatting, lints, unit and property tests
#   make test        what CI runs: check, the model checker, real engines, the wheel, doctests, notebooks
#   make kernels     the CUDA kernels and the fake driver alone; needs no GPU
#   make soak        long fuzzing, long random histories, and the index under a race detector
#   make bench-NAME  one bench; prints a line BENCH {json} last
#   make wheel       the wheel that ships, into dist/
#   make goldens     captures from the real engine what the tests compare with

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := check
.DELETE_ON_ERROR:

# Engine environments (several GB) live here, outside the tree; `make` rebuilds them.
LLMD_CACHE ?= $(HOME)/.cache/llmd-sched
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export LLMD_CACHE
export PIP_DISABLE_PIP_VERSION_CHECK := 1

-include tests/engines/engines.mk

.PHONY: setup develop check fast-check test soak demo wheel goldens lint clean

# --- environments -------------------------------------------------------------------------------

setup: $(VENV)/.stamp

$(VENV)/.stamp: tests/requirements.txt tests/setup/system_packages.sh
	bash tests/setup/system_packages.sh
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install -q -r tests/requirements.txt
	touch $@

RUST_SOURCES := $(shell find src -type f) Cargo.toml Cargo.lock $(wildcard python/llmd_sched/_core/*.pyi)
PYTHON_SOURCES := $(shell find python -name '*.py' -o -name '*.pyi') pyproject.toml

# The extension, built for tests (no LTO) and importable from the test environment.
develop: $(VENV)/.develop
$(VENV)/.develop: $(VENV)/.stamp $(RUST_SOURCES) pyproject.toml
	$(BIN)/maturin develop -q --profile test-build
	touch $@

# --- checks -------------------------------------------------------------------------------------

lint: develop
	cargo fmt --all --check
	cargo fmt --check --manifest-path benches/peers/Cargo.toml
	cargo clippy -q --workspace --all-targets -- -D warnings
	$(BIN)/ruff check -q python tests benches examples
	$(BIN)/ruff format -q --check python tests benches examples
	$(BIN)/mypy python

check: lint
	cargo test -q --workspace
	$(BIN)/pytest -q tests/python

test: check model wheel-test engines nvcc
	$(BIN)/pytest -q tests/kernels tests/faults tests/engines

# NVIDIA's compiler, which needs no GPU.
.PHONY: nvcc kernels
nvcc: $(VENV)/.stamp
	tests/setup/nvcc.sh "$(LLMD_CACHE)"

# The CUDA sources: compiled for every architecture, and run on this CPU beside their twins.
kernels: nvcc
	cargo test -q -p llmd-data --test kernels --test cuda_ipc
	$(BIN)/pytest -q tests/kernels

# The index's readers and writers under a model checker, which tries their interleavings.
.PHONY: model
model:
	RUSTFLAGS="--cfg shuttle" cargo test -q -p llmd-brain --lib --target-dir target/shuttle index::tree

# The same, with real threads, under a race detector, which is told what locks and atomics order.
.PHONY: helgrind
helgrind: $(VENV)/.stamp
	RUSTFLAGS="--cfg helgrind" cargo test -q -p llmd-brain --lib --target-dir target/helgrind --no-run
	LLMD_HISTORIES=$${LLMD_HELGRIND_HISTORIES:-500} RUSTFLAGS="--cfg helgrind" \
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="valgrind --tool=helgrind --fair-sched=yes --num-callers=40 --error-exitcode=1 --suppressions=$(CURDIR)/tests/helgrind/std.supp" \
	cargo test -q -p llmd-brain --lib --target-dir target/helgrind -- --test-threads=1 \
		the_tree_never_over_credits the_tree_keeps_no_ghosts

soak: develop
	LLMD_SCHEDULES=200000 $(MAKE) --no-print-directory model
	LLMD_HELGRIND_HISTORIES=5000 $(MAKE) --no-print-directory helgrind
	LLMD_HISTORIES=1000000 LLMD_OPERATIONS=10000000 LLMD_TRANSFERS=1000000 LLMD_FUZZ_SECONDS=600 cargo test --release --workspace -- --include-ignored
	$(BIN)/pytest -q tests/python tests/faults
	LLMD_SOAK_S=3600 $(BIN)/pytest -q tests/python/test_gateway_soak.py
	$(MAKE) --no-print-directory ray-older

# What we have for Ray, beside the oldest Ray that it is for, in an environment of its own.
RAY_OLDER := 2.50.0
RAY_OLDER_VENV := $(LLMD_CACHE)/ray-$(RAY_OLDER)
.PHONY: ray-older
ray-older: develop $(RAY_OLDER_VENV)/.stamp
	PYTHONPATH=python LLMD_REQUIRE=ray $(RAY_OLDER_VENV)/bin/python -m pytest -q \
		tests/python/test_ray_calls.py tests/python/test_ray_requests.py \
		tests/python/test_ray_router.py tests/python/test_ray_signals.py $(ARGS)

$(RAY_OLDER_VENV)/.stamp:
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/pip install -q "ray[serve]==$(RAY_OLDER)" "numpy>=1.24" "pytest>=8" "pytest-timeout>=2.3" "hypothesis>=6.100" "protobuf<7"
	touch $@

# --- the main job -------------------------------------------------------------------------------

ENGINE ?= embedded
DEMO_VENV := .venv-demo

demo: wheel
	$(PYTHON) -m venv --clear $(DEMO_VENV)
	$(DEMO_VENV)/bin/pip install -q "$$(ls -t dist/*.whl | head -1)[demo]"
	$(MAKE) --no-print-directory demo-$(ENGINE)

.PHONY: demo-embedded demo-vllm
demo-embedded:
	$(DEMO_VENV)/bin/python -m llmd_sched.demo $(ARGS)

# --- the wheel ----------------------------------------------------------------------------------

wheel: $(VENV)/.stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/maturin build -q --profile dist --zig --compatibility manylinux_2_28 --out dist

.PHONY: wheel-test
wheel-test: wheel
	bash tests/setup/wheel_alone.sh "$$(ls -t dist/*.whl | head -1)"

# --- benches ------------------------------------------------------------------------------------

# The rivals' wheels, in an environment of their own, and beside them ours as it ships but for the
# foreign linker.
PEERS = environment=$$(benches/rivals/install.sh "$(LLMD_CACHE)") && "$$environment/bin/python"
PEERS_TARGET := benches/peers/target
# Traces for `make bench-index TRACE=...`, in the format of Mooncake's.
TRACE ?=

.PHONY: bench-decision bench-index bench-events bench-select bench-growth bench-peers-lint
bench-decision: $(VENV)/.stamp
	rm -rf $(LLMD_CACHE)/peers-wheel
	$(BIN)/maturin build -q --profile dist --out $(LLMD_CACHE)/peers-wheel
	$(PEERS) -m pip install -q --force-reinstall --no-deps $(LLMD_CACHE)/peers-wheel/*.whl
	$(PEERS) benches/decision.py $(ARGS)

bench-index:
	cargo run -q --release --manifest-path benches/peers/Cargo.toml -- $(if $(TRACE),--trace $(TRACE)) $(ARGS)

# Ten minutes and 8 GB.
bench-growth: $(VENV)/.stamp
	cargo run -q --release --manifest-path benches/peers/Cargo.toml -- \
		--only growth --growth $(PEERS_TARGET)/growth.csv $(ARGS)
	$(BIN)/python benches/plot_growth.py $(PEERS_TARGET)/growth.csv benches/plots

# Not in `make lint`: compiling the rivals takes minutes.
bench-peers-lint:
	cargo clippy -q --release --manifest-path benches/peers/Cargo.toml --all-targets -- -D warnings
	cargo test -q --release --manifest-path benches/peers/Cargo.toml

# The public traces that the benches of policies play.
TRACES ?= ../shared/traces

.PHONY: bench-sched bench-sched-workloads
bench-sched:
	cargo build -q --profile dist -p llmd-bodies
	$(PYTHON) benches/sched.py target/dist/llmd-sched $(TRACES) $(ARGS)

bench-sched-workloads:
	cargo build -q --profile dist -p llmd-bodies
	$(PYTHON) benches/sched_workloads.py target/dist/llmd-sched $(TRACES) $(ARGS)

# Fleets whose size follows a day.
.PHONY: bench-autoscale
bench-autoscale:
	cargo build -q --profile test-build -p llmd-bodies
	$(PYTHON) benches/autoscale.py target/test-build/llmd-sched $(TRACES) $(ARGS)

.PHONY: bench-flow
bench-flow:
	cargo build -q --release -p llmd-bodies
	$(PYTHON) benches/flow.py target/release/llmd-sched $(TRACES) $(ARGS)

# How well latencies are predicted, on fleets of unlike engines.
.PHONY: bench-predict
bench-predict:
	cargo build -q --profile test-build -p llmd-bodies
	$(PYTHON) benches/predict.py target/test-build/llmd-sched $(TRACES) $(ARGS)

# The same on two real engines. What else the machine does is part of what it measures.
.PHONY: bench-predict-vllm
bench-predict-vllm: develop engines
	$(PYTHON) tests/engines/with_engines.py --model small-llama --num-blocks 256 --max-model-len 1024 -- \
		$(BIN)/python benches/predict_vllm.py {urls} $(ARGS)

# Inside Ray Serve: the wheel as it ships but for the foreign linker, before the one that tests use.
SHIPPED := $(LLMD_CACHE)/shipped
.PHONY: shipped bench-ray bench-ray-pick bench-ray-routers bench-ray-ingress
shipped: $(VENV)/.stamp
	rm -rf $(SHIPPED)
	$(BIN)/maturin build -q --profile dist --out $(SHIPPED)/wheel
	$(BIN)/pip install -q --no-deps --target $(SHIPPED)/python $(SHIPPED)/wheel/*.whl

bench-ray: shipped
	PYTHONPATH=$(SHIPPED)/python $(BIN)/python benches/ray_serve.py $(ARGS)

bench-ray-pick: shipped
	PYTHONPATH=$(SHIPPED)/python $(BIN)/python benches/ray_pick.py $(ARGS)

.PHONY: bench-telling
bench-telling: shipped
	PYTHONPATH=$(SHIPPED)/python $(BIN)/python benches/telling.py $(ARGS)

.PHONY: bench-tokenize
bench-tokenize: shipped
	PYTHONPATH=$(SHIPPED)/python $(BIN)/python benches/tokenizing.py $(ARGS)

bench-ray-routers: develop
	$(BIN)/python benches/ray_routers.py $(ARGS)

bench-ray-ingress: shipped
	PYTHONPATH=$(SHIPPED)/python $(BIN)/python benches/ray_ingress.py $(ARGS)

# Beside nginx and the LLM routers that ship as wheels.
.PHONY: bench-gateway flame-gateway
GATEWAY_TOOL = $$(cargo build --release -p llmd-bodies --bench gateway --message-format=json 2>/dev/null | \
	$(PYTHON) -c 'import json, sys; print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable")][-1])')
bench-gateway:
	cargo build -q --profile dist -p llmd-bodies --bin llmd-sched
	rivals=$$(benches/rivals/gateways.sh "$(LLMD_CACHE)"); \
	$(PYTHON) benches/gateway.py "$(GATEWAY_TOOL)" target/dist/llmd-sched "$$rivals" $(ARGS)

# Where its time goes, into benches/plots.
flame-gateway:
	benches/gateway/flame.sh "$(GATEWAY_TOOL)" "$(LLMD_CACHE)"

# Blocks from process to process, beside memcpy, a raw TCP loop and NIXL.
TRANSFER_TOOL = $$(cargo bench -p llmd-data --bench transfer --no-run --message-format=json 2>/dev/null | \
	$(PYTHON) -c 'import json, sys; print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable")][-1])')
.PHONY: bench-transfer
bench-transfer:
	nixl=$$(benches/rivals/nixl.sh "$(LLMD_CACHE)"); \
	$(PYTHON) benches/transfer/compare.py "$(TRANSFER_TOOL)" "$$nixl/bin/python" $(ARGS)

# The CPU's stages of expert parallelism beside torch's, in the engine's environment.
.PHONY: bench-ep
bench-ep: engines
	cargo build -q --release -p llmd-data --example ep_c
	$(INSTALLED_VLLM) benches/ep/bench.py target/release/examples/libep_c.so $(ARGS)

# The store of KV blocks: what a block costs, beside fio, and which blocks should go. Each bench
# adds the keys of its own `BENCH` line to the last.
.PHONY: bench-kv
KV_BENCHES := store eviction
bench-kv:
	mkdir -p target/bench-kv
	cargo bench -q -p llmd-data --bench kv_store -- target/bench-kv | tee target/bench-kv/store.txt
	cargo bench -q -p llmd-data --bench eviction -- $(TRACES) | tee target/bench-kv/eviction.txt
	$(PYTHON) benches/kv/merge.py $(KV_BENCHES:%=target/bench-kv/%.txt)

# Placement of experts beside vLLM's own, in its environment.
.PHONY: bench-moe
bench-moe: develop
	environment=$$(tests/engines/install_vllm.sh "$(LLMD_CACHE)"); \
	PYTHONPATH=python "$$environment/bin/python" benches/moe.py $(ARGS)

bench-events:
	cargo bench -q -p llmd-bodies --bench events

bench-select:
	cargo bench -q -p llmd-brain --bench select

clean:
	rm -rf target dist $(VENV) $(DEMO_VENV)
