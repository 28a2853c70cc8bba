# make help lists the targets. Every target builds the environment it needs in .venv (VENV=... for another place).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := $(VENV)/bin
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help env demo demo-change test test-fast golden check format bench lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 15

env: $(VENV)/.installed  ## the environment, from requirements.lock

$(VENV)/.installed: requirements.lock pyproject.toml
	@echo "installing the environment into $(VENV) (a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "driftline is locked for Python 3.11; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: env  ## real Sentinel-2 data -> forecast map, picture and report in runs/demo/
	@$(BIN)/driftline demo

demo-change: env  ## real Sentinel-2 data -> map of a forest's felling, polygons and report in runs/demo-change/
	@$(BIN)/driftline demo --change

test: env  ## the whole test suite
	@$(BIN)/python -m pytest -q

test-fast: env  ## without the slow and the server tests
	@$(BIN)/python -m pytest -q -m "not slow and not server"

golden: env  ## both demos in full against their golden values (tests/golden/full.json)
	@$(BIN)/python -m tests.golden record build/golden.json --full
	@$(BIN)/python -m tests.golden compare tests/golden/full.json build/golden.json --tolerance 1e-6

check: env  ## ruff, type checker, import directions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy flows configs pipelines models benchmarks
	@$(BIN)/lint-imports

format: env  ## put the code into its one format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: env  ## timed comparisons against peers and the machine's limit, ratios from one run
	@$(BIN)/python -m benchmarks

lock:  ## resolve pyproject.toml anew and write requirements.lock (then run make test)
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install --quiet --disable-pip-version-check 'setuptools>=77' '.[dev,logs]'
	@{ sed -n '/^#/p' requirements.lock; build/lock/bin/python -m pip freeze --all --exclude driftline --exclude pip | sed -E 's/\+cpu$$//' ; } > build/requirements.lock
	@mv build/requirements.lock requirements.lock && rm -rf build/lock

clean:  ## remove what make made, but not runs/ and data/
	@rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
