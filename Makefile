# The commands of this project; each sets up what it needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
JOBS   ?= 2

.PHONY: setup lint type contracts test models bench demo conformance clients clean

setup: $(VENV)/.dev

# Everything for development. A second run does nothing until pyproject.toml changes.
$(VENV)/.dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(VENV)/.dev $(VENV)/.demo

# Only what the demo needs, so that its first run is short.
$(VENV)/.demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $(VENV)/.demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup
	$(BIN)/basedpyright

contracts: setup
	$(BIN)/lint-imports

test: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

# What is beyond the slice that every change runs: more sizes of real models, threads and targets.
.PHONY: test-long
test-long: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m long

# What failed last time, alone and one after the other.
.PHONY: test-failed
test-failed: setup
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none --maxfail 1

# Fetches and exports the real models that the tests and the benchmarks use.
models: setup
	$(BIN)/python -m benchmarks.models

bench: setup
	$(BIN)/python -m benchmarks.engines

# The tables of docs/reference/performance.md: all engines with floors, on one and two threads, and in batches.
.PHONY: bench-engines
bench-engines: setup
	$(BIN)/python -m pip install --quiet --no-deps MNN==3.6.1
	$(BIN)/python -m benchmarks.engines --keep
	$(BIN)/python -m benchmarks.engines --keep --threads 2
	$(BIN)/python -m benchmarks.engines --keep --batch 8 --rounds 8

# The first table in bfloat16, for processors that multiply it; openvino is asked for it too.
.PHONY: bench-bf16
bench-bf16: setup
	$(BIN)/python -m benchmarks.engines --keep --precision bf16

# Networks that nobody tuned the kernels for, with random weights.
.PHONY: bench-unseen
bench-unseen: setup
	$(BIN)/python -m pip install --quiet --no-deps MNN==3.6.1
	$(BIN)/python -m benchmarks.unseen --json benchmarks/results/unseen.json

# Models of a single operator beside onnxruntime, slowest first.
.PHONY: bench-operators
bench-operators: setup
	$(BIN)/python -W ignore -m benchmarks.operators --json benchmarks/results/operators.json

# The whole ONNX backend suite, with a table of what passes and a reason for the rest.
conformance: setup
	$(BIN)/python -W ignore -m tests.conformance.run --jobs $(JOBS) --page docs/reference/conformance.md

# The same with every dim of every input open until the run.
.PHONY: conformance-open
conformance-open: setup
	$(BIN)/python -W ignore -m tests.conformance.run --jobs $(JOBS) --open-dims

# 64 stock clients for a minute against the server: no errors, every answer bit-equal.
clients: setup
	$(BIN)/python -m benchmarks.parallel_clients

demo: $(VENV)/.demo
	$(BIN)/python -m examples.ocr

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# 1,000 simulated roll-outs a scenario: how often good ones are sent back, how soon bad ones are.
.PHONY: sim-canary
sim-canary: setup
	$(BIN)/python -m benchmarks.rollout_simulation --runs 1000

# What `make demo-canary` needs: the demo's packages, and matplotlib for its picture.
$(VENV)/.demo-canary: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[demo,plot]'
	touch $(VENV)/.demo-canary

# A better version is promoted by itself, three bad ones are sent back, under load; draws canary.png.
.PHONY: demo-canary
demo-canary: $(VENV)/.demo-canary
	$(BIN)/python -m examples.canary

# A hundred swaps of the answering version at full load, and what a routing decision costs.
.PHONY: swaps
swaps: setup
	$(BIN)/python -m benchmarks.version_swaps
	$(BIN)/python -m benchmarks.rollout_router

# Memory after 10,000 random shapes beside that after the largest one.
.PHONY: shapes
shapes: setup
	$(BIN)/python -m benchmarks.shape_variety

# 20,000 random graphs over the operator table: generated C beside NumPy and onnxruntime.
.PHONY: fuzz-ops
fuzz-ops: setup
	$(BIN)/python -W ignore -m tests.fuzz.run --jobs $(JOBS)

# tuili beside Triton and the Python servers that are installed (python -m benchmarks.peers.install).
.PHONY: bench-server
bench-server: setup
	$(BIN)/python -m benchmarks.server
	$(BIN)/python -m benchmarks.server --free --cases "small,mlp"
	$(BIN)/python -m benchmarks.server_path

# Ten minutes of load while model hosts are killed, leak, hang and crash: nothing wrong, nothing lost.
.PHONY: chaos
chaos: setup
	$(BIN)/python -m benchmarks.chaos

# Twenty minutes of load, loads, unloads and dying hosts: memory and descriptors must not grow.
.PHONY: soak
soak: setup
	$(BIN)/python -m benchmarks.soak

# Overload, and learnt against hand-tuned delays and Triton's batcher, on real models.
.PHONY: bench-scheduling
bench-scheduling: setup
	$(BIN)/python -m benchmarks.scheduling overload
	$(BIN)/python -m benchmarks.scheduling delays

# Quantized models beside onnxruntime and openvino, on the same files and interleaved.
.PHONY: bench-int8
bench-int8: setup
	$(BIN)/python -m benchmarks.int8 --keep

# The same requests to tuili and to a real Triton (out of a wheel): every difference, meant or not.
.PHONY: diff-triton
diff-triton: setup
	$(BIN)/python -m tests.conformance.triton.differential.run

# Triton's own client examples and tests; TRITON_QA and TRITON_CLIENT name checkouts of its repositories.
.PHONY: conformance-triton
conformance-triton: setup
	$(BIN)/python -m pip install --quiet requests sseclient-py
	TRITON_QA="$(TRITON_QA)" TRITON_CLIENT="$(TRITON_CLIENT)" \
		$(BIN)/python -m tests.conformance.triton.suites.run --page docs/reference/triton-conformance.md

# The backend suite and 480 random graphs with generated C under the address and undefined-behaviour
# sanitizers of gcc.
.PHONY: sanitize
sanitize: setup
	$(BIN)/python -W ignore -m tests.sanitize.run --jobs $(JOBS)


# Requests made of the OpenAPI document, valid and mutated, against a real server (schemathesis).
.PHONY: fuzz-http
fuzz-http: setup
	$(BIN)/python -W ignore -m tests.fuzz.http_api --examples 100

# The tests of kernels for processors that this machine is not, under qemu-user: exact for codes, within
# the same tolerances for real numbers. Needs the Debian packages qemu-user and gcc-aarch64-linux-gnu.
.PHONY: qemu
QEMU_TARGETS ?= aarch64-dotprod aarch64 x86-64
qemu: setup
	for target in $(QEMU_TARGETS); do \
	  TUILI_TEST_TARGET=$$target $(BIN)/python -m pytest -n $(JOBS) tests/codegen/kernels \
	    --ignore tests/codegen/kernels/test_found.py --ignore tests/codegen/kernels/test_loop.py || exit 1; \
	done

# kill -9 during and after every write of a promotion: one server and two, on SQLite and PostgreSQL.
.PHONY: kill-matrix
kill-matrix: setup
	TUILI_KILL_MATRIX=all $(BIN)/python -m pytest -q tests/server/control/test_kill_matrix.py

# The mirror of Azure repositories against Microsoft's own emulator, an npm package.
.PHONY: test-azure
test-azure: setup
	$(BIN)/python -m pip install --quiet --editable '.[azure]'
	npm install --silent --no-audit --no-fund --prefix $(VENV)/azurite azurite
	PATH="$(VENV)/azurite/node_modules/.bin:$$PATH" $(BIN)/python -m pytest tests/server/remote -k azure

# silero-vad, scikit-learn exports and kokoro beside onnxruntime: answers, labels, time.
.PHONY: real-models
real-models: setup
	$(BIN)/python -W ignore -m benchmarks.real_models

# Damaged models of the ONNX backend suite: whatever they say, only tuili's own errors may come out.
.PHONY: fuzz-models
fuzz-models: setup
	$(BIN)/python -W ignore -m tests.importers.mutants

# Networks of timm and transformers with random weights beside onnxruntime; takes hours.
.PHONY: architectures
architectures: setup
	$(BIN)/python -m benchmarks.architectures

# The ONNX files that other people's packages bring, beside onnxruntime.
.PHONY: packaged-models
packaged-models: setup
	$(BIN)/python -m benchmarks.packaged_models

# Weights of a few bits: tuili, onnxruntime and openvino turn about.
.PHONY: bench-few-bits
bench-few-bits: setup
	$(BIN)/python -m benchmarks.few_bits
