# make help lists the targets. Every target builds the environment it needs in .venv (VENV=... for another place).
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
# The first of these that starts: a name on the path may be a shim for a Python that is not there.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do $$name -c '' 2>/dev/null && echo $$name && break; done)
BIN := $(VENV)/bin
# Without compiling: Python compiles what is imported, which is a fraction of what is installed. It must be let keep the result:
# where the machine forbids it, each of the processes that the tests start would compile torch and xarray again (a minute instead of
# ten seconds).
unexport PYTHONDONTWRITEBYTECODE
# Memory in large pages, for what walks through much of it: a third less time where the memory of a virtual machine is slow.
LARGE_PAGES := env GLIBC_TUNABLES=glibc.malloc.hugetlb=1 PYTHONMALLOC=malloc
PIP_INSTALL := pip install --quiet --quiet --disable-pip-version-check --no-compile
LOCK ?= requirements-dev.lock
# Every file has the hash that the lock states and is a wheel: nothing is built. The lock is complete, so pip need not resolve.
LOCKED := --require-hashes --only-binary=:all: --no-deps --requirement
UV := uv==0.13.9
RESOLVE = build/uv/bin/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --fork-strategy fewest \
  --generate-hashes --no-annotate --no-emit-package torch --custom-compile-command "make lock" $(UPGRADE)
# Whole files to each process, so that what a file's tests share is made once. One more process than cores, since some tests wait.
# JOBS=0: one after the other, in this process.
JOBS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores > 3 ? 4 : cores + 1)))
TESTS ?= tests
PARALLEL = --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder
ICECHUNK2 := icechunk==2.3.0 zarr==3.4.2 xarray==2026.9.0 numpy==2.5.5
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false

.PHONY: help env demo demo-change demo-medical test test-all test-fast test-without-torch test-icechunk2 test-hostile golden check format bench bench-peers nowcasting lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

env: $(VENV)/.installed  ## the environment, from the locks (LOCK=requirements.lock: without the developers' tools)

$(VENV)/.installed: $(LOCK) requirements-torch.lock pyproject.toml
	@echo "installing the environment into $(VENV) (a few minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "driftline needs Python 3.11, 3.12 or 3.13; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(LARGE_PAGES) $(BIN)/python -m $(PIP_INSTALL) $(LOCKED) $(LOCK)
	@$(BIN)/python -m $(PIP_INSTALL) --requirement requirements-torch.lock
	@$(BIN)/python -m $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip check
	@touch $@

demo: env  ## real Sentinel-2 data -> forecast map, picture and report in runs/demo/
	@$(BIN)/driftline demo

demo-change: env  ## real Sentinel-2 data -> map of a forest's felling, polygons and report in runs/demo-change/
	@$(BIN)/driftline demo --change

demo-medical: env  ## a real echocardiogram -> de-identified copy, next frames, a tracked region and report in runs/demo-medical/
	@$(BIN)/driftline demo --medical

test: env  ## the tests that CI runs
	@$(BIN)/python -m pytest -q $(PARALLEL)

test-all: export DRIFTLINE_TESTS := all
test-all: test  ## with those that repeat at more points what others promise (a kill before each call, every deployment, ...)

test-fast: env  ## without the slow and the server tests
	@$(BIN)/python -m pytest -q $(PARALLEL) -m "not slow and not server"

test-hostile: env  ## thousands of damaged and hostile files through ingest, with figures (HOSTILE="--kind cut" for some of them)
	@$(BIN)/python -m tests.hostile $(HOSTILE)

golden: env  ## both demos in full against their golden values (tests/golden/full.json)
	@$(BIN)/python -m tests.golden record build/golden.json --full
	@$(BIN)/python -m tests.golden compare tests/golden/full.json build/golden.json --tolerance 1e-6

test-without-torch: test-on-3.12 test-on-3.13  ## the tests that need no torch, on Python 3.12 and 3.13 (TESTS=...: some of them)

test-icechunk2: env build/venv-icechunk2/.installed  ## cubes of ours read with Icechunk 2, on Python 3.12 in an environment of its own
	@if test -e build/venv-icechunk2/.installed; then \
	  DRIFTLINE_ICECHUNK2=$(CURDIR)/build/venv-icechunk2/bin/python $(BIN)/python -m pytest -q tests/unit/cube/test_icechunk2.py; \
	else echo "Python 3.12 is not on this machine: nothing was tested"; fi

build/venv-icechunk2/.installed: Makefile
	@if PYENV_VERSION=3.12 python3.12 -c '' 2>/dev/null; then \
	  PYENV_VERSION=3.12 python3.12 -m venv build/venv-icechunk2; \
	  build/venv-icechunk2/bin/python -m $(PIP_INSTALL) --only-binary=:all: $(ICECHUNK2); \
	  touch $@; \
	fi

# PYTHONPATH: two editable installs at once would race for one egg-info.
test-on-%: build/venv-%/.installed
	@if test -e $<; then \
	  echo "Python $*, without torch:"; \
	  PYTHONPATH=$(CURDIR) build/venv-$*/bin/python -m pytest -q -rs --no-fold-skipped -p no:cacheprovider $(PARALLEL) -m "not slow and not server" $(TESTS); \
	else echo "Python $* is not on this machine: its tests were not run"; fi

# pyenv's shims start a Python only where PYENV_VERSION names it.
.PRECIOUS: build/venv-%/.installed
build/venv-%/.installed: requirements-dev.lock
	@if PYENV_VERSION=$* python$* -c '' 2>/dev/null; then \
	  PYENV_VERSION=$* python$* -m venv build/venv-$*; \
	  build/venv-$*/bin/python -m $(PIP_INSTALL) $(LOCKED) requirements-dev.lock; \
	  touch $@; \
	fi

check: env  ## ruff, type checker, import directions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(LARGE_PAGES) $(BIN)/mypy driftline flows configs pipelines models benchmarks
	@$(BIN)/lint-imports

format: env  ## put the code into its one format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: env  ## timed comparisons against peers and the machine's limit, ratios from one run
	@$(BIN)/python -c 'import pysteps' 2>/dev/null || echo "pysteps is not installed: the nowcasting comparison shows our own methods (make nowcasting)"
	@test -e runs/radar/config.yaml || echo "no run in runs/radar: the nowcasting comparison needs one ($(BIN)/driftline run configs/radar.yaml)"
	@$(BIN)/python -m benchmarks

bench-peers: env build/venv-peers/.installed  ## side by side with odc-stac, xbatcher, MONAI and torchgeo, which get an environment of their own
	@$(BIN)/python -m benchmarks peers

build/venv-peers/.installed: benchmarks/peers/requirements.txt requirements-torch.lock
	@$(BIN)/python -m venv build/venv-peers
	@build/venv-peers/bin/python -m $(PIP_INSTALL) --requirement requirements-torch.lock
	@build/venv-peers/bin/python -m $(PIP_INSTALL) --only-binary=:all: --no-deps --requirement benchmarks/peers/requirements.txt
	@touch $@

nowcasting: env  ## pysteps for the comparison in make bench: built from source with a C compiler, so outside the locks
	@$(BIN)/python -m $(PIP_INSTALL) --editable '.[nowcasting]'
	@$(BIN)/python -m pip check

lock:  ## resolve pyproject.toml and write the locks; pins that still fit stay (UPGRADE=--upgrade: the newest)
	@test -x build/uv/bin/uv || { $(PYTHON) -m venv build/uv && build/uv/bin/python -m $(PIP_INSTALL) '$(UV)'; }
	@$(RESOLVE) --extra logs --extra medical --extra video --extra sweep --output-file requirements.lock
	@$(RESOLVE) --extra logs --extra medical --extra video --extra sweep --extra dev --constraint requirements.lock --output-file requirements-dev.lock

clean:  ## remove what make made, but not runs/ and data/
	@rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
