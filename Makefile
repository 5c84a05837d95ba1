# Everything runs in .venv, which the first target that needs it sets up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What must be installed anew when it changes.
BUILT := pyproject.toml src/hashserv/equivalence/_answers.c
ARGS ?=
# Tests mostly wait for processes that they start: more at once than there are cores.
PROCESSES ?= 4

.PHONY: serve test lint check bench bench-full soak fuzz generate clean

serve: $(VENV)/ready  ## start a server on ./hashserve.sock and print the lines for local.conf
	$(BIN)/hashserv serve $(ARGS)

test: $(VENV)/ready-dev  ## run every test (ARGS="-k name" picks some)
	$(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal $(ARGS)

lint: $(VENV)/ready-dev  ## style, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

check: lint test  ## what CI runs

bench: $(VENV)/ready-dev  ## the table of requests a second, beside redis-server
	$(BIN)/python -m bench $(ARGS)

bench-full: $(VENV)/ready-dev  ## the same in five rounds, with ten million mappings, into docs/performance.md
	$(BIN)/python -m bench --full --json bench/results/full.json $(ARGS)
	$(BIN)/python -m bench.page bench/results/full.json

soak: $(VENV)/ready-dev  ## the long versions of the crash, race and property tests
	HASHSERV_SOAK=1 $(BIN)/python -m pytest --timeout 3600 $(ARGS)

fuzz: $(VENV)/ready-dev  ## random questions to the compiled cache, its memory watched
	CFLAGS="-O1 -g -fsanitize=address,undefined" $(BIN)/pip install --quiet --editable .
	PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD="$$(cc -print-file-name=libasan.so) $$(cc -print-file-name=libubsan.so)" \
	HASHSERV_SOAK=1 $(BIN)/python -m pytest -p no:cacheprovider --timeout 3600 tests/equivalence/test_answers.py $(ARGS); \
	status=$$?; $(BIN)/pip install --quiet --editable . && exit $$status

generate: $(VENV)/ready-dev  ## write the sync client anew, from the async one
	$(BIN)/python -m tools.generate_sync

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hashserv needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready: $(BUILT) | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/ready-dev: $(BUILT) | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/ready

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
