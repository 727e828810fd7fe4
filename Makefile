# Everything runs from here, in a path of any shape: paths are relative, nothing is installed outside .venv.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV := .venv
PYTHON := $(VENV)/bin/python
CLI := $(VENV)/bin/feature-platform
STAMP := $(VENV)/.installed
SYSTEM_PACKAGES := chromium nodejs prometheus prometheus-alertmanager

.PHONY: help setup install demo demo-full example up down test test-system check lint types imports sql-lint lock bench drill clean

help: ## Show this.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make .venv from the hashed lock.

# One setup at a time: a second one waits for the first and then finds nothing to do. (flock(1) is not everywhere.)
$(STAMP): requirements.lock
	@for candidate in python3 python3.13 python3.12 python3.11 $(PYTHON); do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	      2>/dev/null; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then \
	  echo "No Python 3.11, 3.12 or 3.13 with venv was found (looked for python3, python3.13, python3.12, python3.11)." >&2; \
	  echo "Install one, on Debian or Ubuntu: apt-get install python3 python3-venv" >&2; exit 1; \
	fi; \
	exec "$$found" -c "$$LOCKED" $(MAKE) --no-print-directory install PYTHON_FOUND="$$found"

define LOCKED
import fcntl, os, sys
lock = open(".setup.lock", "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("Another setup is at work in this clone; waiting for it", flush=True)
    fcntl.flock(lock, fcntl.LOCK_EX)
os.set_inheritable(lock.fileno(), True)  # held until make ends, however it ends
os.execvp(sys.argv[1], sys.argv[1:])
endef
export LOCKED

# The stamp is written last: an interrupted setup goes on where it stopped.
install:
	@if [ $(STAMP) -nt requirements.lock ]; then exit 0; fi; set -e; \
	if ! $(PYTHON) -c 'import pip' 2>/dev/null; then \
	  echo "Making $(VENV) with $$($(PYTHON_FOUND) --version)"; $(PYTHON_FOUND) -m venv --clear $(VENV); \
	fi; \
	echo "Installing $$(grep -c == requirements.lock) packages (a few minutes)"; \
	$(PYTHON) -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r requirements.lock; \
	$(PYTHON) -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	touch $(STAMP)

demo: setup ## From nothing to served features, on real data (about 5 minutes).
	@$(CLI) demo

demo-full: setup ## The same over all history of all views.
	@$(CLI) demo --full

example: setup ## What an offline score is worth: one model, three joins (after `make demo`).
	@$(PYTHON) examples/honest_scores.py

up: setup ## Start the local stack; the UI is on http://localhost:3000.
	@$(CLI) up

down: ## Stop the local stack; nothing is lost.
	@if [ -x $(CLI) ]; then $(CLI) down; else echo "nothing was running"; fi

test: setup ## Tests that need nothing but the wheels.
	$(PYTHON) -m pytest -m "not system" -n 2 --dist loadfile --no-loadscope-reorder

test-system: setup ## Tests that need Debian packages (Chromium, Node.js, Prometheus).
	@{ command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null && \
	  command -v node >/dev/null && command -v promtool >/dev/null && command -v amtool >/dev/null || { \
	  echo "These tests need the Debian packages: $(SYSTEM_PACKAGES) (apt-get install $(SYSTEM_PACKAGES))" >&2; exit 1; }
	$(PYTHON) -m pytest -m system -n 2 --dist loadfile --no-loadscope-reorder

check: lint types imports sql-lint test test-system ## What CI runs.

lint: setup ## Style of Python.
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types: setup ## Types, strictly.
	$(PYTHON) -m mypy

imports: setup ## Which room may import which.
	$(VENV)/bin/lint-imports

sql-lint: setup ## Style of SQL.
	$(VENV)/bin/sqlfluff lint dbt_project/models

lock: setup ## Write requirements.lock anew from pyproject.toml: names, versions, hashes; all platforms.
	@$(PYTHON) -m uv --version >/dev/null 2>&1 || $(PYTHON) -m pip install --quiet --disable-pip-version-check uv
	@# setuptools builds the editable install, without network
	echo 'setuptools>=77' | $(PYTHON) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --extra platform --extra embedded --extra reference --extra examples \
	  --extra dev \
	  --output-file requirements.lock pyproject.toml -


bench: setup ## Benchmarks; each prints its result as its last line.
	@for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(PYTHON) "$$benchmark" || exit 1; done

drill: setup ## Inject faults into a stack of its own (25 minutes); FAULTS="a b" for some of them, DOCS=1 for docs/drill.md.
	@$(PYTHON) -c 'import libfaketime' 2>/dev/null || \
	  $(PYTHON) -m pip install -qq --disable-pip-version-check --require-hashes --no-deps -r drill/requirements.txt
	@$(PYTHON) -m drill $(FAULTS) $(if $(DOCS),--docs)

clean: ## Stop the local stack, delete its data and all caches; .venv stays.
	@if [ -x $(CLI) ]; then $(CLI) down --delete-data --yes; fi
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dbt_project/target dbt_project/logs
	find . -name __pycache__ -not -path './.venv/*' -type d -prune -exec rm -rf {} +
