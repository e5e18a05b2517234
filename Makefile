# Carteiro. `make demo` shows it, `make test` proves it. Needs Python 3.11 to 3.13 (with venv), git and make.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test test-browser chaos chaos-jobs mutants stops night model bench lint format lock clean

VENV := .venv
PY := $(VENV)/bin/python
ONCE ?=
BENCH ?=
SEEDS ?= 60
WORKS ?= 3
RECIPIENTS ?= 120
DATABASE ?= sqlite postgres

# The first Python that runs, has the right age, and can make a virtual environment.
FIND_PYTHON = for p in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	>/dev/null 2>&1 && { echo "$$p"; exit 0; }; done; exit 1

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

demo: $(VENV)/.ready ## the whole week with a sample issue; ONCE=1 ends after the books
	@$(PY) manage.py demo $(if $(ONCE),--once)

test: $(VENV)/.ready-dev ## the suite, on SQLite and on PostgreSQL
	TEST_DATABASE=sqlite $(PY) -m pytest -n 2 --dist loadfile
	TEST_DATABASE=postgres $(PY) -m pytest -n 2 --dist loadfile

test-browser: $(VENV)/.ready-dev ## the pages, in a real Chromium
	$(PY) -m pytest -m browser tests/browser

chaos: $(VENV)/.ready-dev ## senders killed at every named point, on each DATABASE; SEEDS=60 RECIPIENTS=120 WORKS=3 (half an hour)
	@for database in $(DATABASE); do \
		$(PY) -m tests.chaos.ledger.run --database $$database --seeds $(SEEDS) --recipients $(RECIPIENTS) && \
		$(PY) -m tests.chaos.ledger.run --database $$database --seeds $(WORKS) --work || exit 1; \
	done

mutants: $(VENV)/.ready-dev ## deliberate faults of ours in the ledger: the oracle must notice each (two minutes a database)
	@for database in $(DATABASE); do $(PY) -m tests.chaos.ledger.mutants --database $$database || exit 1; done

chaos-jobs: $(VENV)/.ready-dev ## kill -9 of random parts of `work` under load: 100 on each database (half an hour)
	$(PY) -m tests.chaos.storm --kills 100 --database sqlite
	$(PY) -m tests.chaos.storm --kills 100 --database postgres

stops: $(VENV)/.ready-dev ## SIGTERM to `work`, idle and busy, alone and to all: 40 times each (a quarter of an hour)
	$(PY) -m tests.chaos.stops --times 40

night: $(VENV)/.ready-dev ## `work` for 30 minutes at 20 jobs/s: memory, descriptors, tables
	$(PY) -m tests.chaos.night --minutes 30 --rate 20

model: $(VENV)/.ready-dev ## every state that the ledger can reach, by its table of moves (half a minute of one core)
	$(PY) -m tests.model

bench: $(VENV)/.ready-dev ## how fast it is here, against the wire: docs/performance.md (40 minutes of a quiet machine; needs smtp-sink)
	$(PY) -m tests.bench $(BENCH)

lint: $(VENV)/.ready-dev ## style, types, import contracts, migrations, deployment check
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	ENV_FILE=tests/check.env $(PY) -m mypy newsletter delivery config tests manage.py
	$(VENV)/bin/lint-imports
	ENV_FILE=tests/check.env $(PY) manage.py makemigrations --check --dry-run
	ENV_FILE=tests/check.env $(PY) manage.py check --deploy --fail-level WARNING

format: $(VENV)/.ready-dev ## put the code in order
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

lock: $(VENV)/.ready-dev ## pin what pyproject.toml asks for, with hashes
	$(PY) -m uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header -q -o requirements.txt
	$(PY) -m uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header -q -c requirements.txt -o requirements-dev.txt

clean: ## remove what the demo and the tests left (not a real database)
	rm -rf var/demo var/screenshots var/test.sqlite3* .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@command -v git >/dev/null || { echo "git is missing: install it (Debian: apt install git)"; exit 2; }
	@python=$$($(FIND_PYTHON)) || { \
		echo "Python 3.11, 3.12 or 3.13 with venv is missing (Debian: apt install python3 python3-venv),"; \
		echo "or name one: make PYTHON=/path/to/python3.12 ..."; exit 2; }; \
	echo "Making $(VENV) with $$python"; "$$python" -m venv $(VENV)

$(VENV)/.ready: requirements.txt | $(VENV)/bin/python
	@echo "Installing what Carteiro needs"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/.ready-dev: requirements-dev.txt requirements.txt | $(VENV)/bin/python
	@echo "Installing what the tests need"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@ $(VENV)/.ready
