# make demo      the main job on a few real photos, with an HTML page at the end
# make test      the quick tests; make test-all adds the slow ones
# make check     ruff, mypy and the import contracts
# make lock      resolve requirements/*.in again
# Each sets up .venv first, which is quick when it is there.

# Tests share nothing, so several run at once; whoever is free takes another's.
PYTEST_JOBS := -n auto --maxprocesses 4 --dist worksteal
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
STAMP := $(VENV)/.ready

.PHONY: demo test test-all check format lock setup clean

setup: $(STAMP)

$(STAMP): requirements/lock.txt pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "maskmill needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "no venv module: apt-get install python3-venv, then run make again" >&2; \
	    rm -rf $(VENV); exit 1; }
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/lock.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/maskmill demo-photos demo-out/photos
	$(BIN)/maskmill run demo/job.toml
	@echo "open demo-out/report.html in a browser"

test: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_JOBS)

test-all: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_JOBS) -m "slow or not slow"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock:
	$(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --universal \
	  --python-version 3.11 requirements/dev.in -o requirements/lock.txt

clean:
	rm -rf $(VENV) demo-out bench-out
