# One command each: `make demo`, `make test`, `make check`. Everything is installed into .venv from the locks.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# With extras: where a lock pins `coverage` and a package wants `coverage[toml]`, pip takes the newest one for that, and
# refuses it for want of a hash as soon as there is a newer one.
UV_COMPILE := $(BIN)/uv --no-config pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-strip-extras --custom-compile-command "make lock" $(UPGRADE)

.PHONY: help demo test everywhere clients coverage check format docs bench soak catalog-audit catalog-table pictures locales lock audit dist sbom \
	pin-images upgrade-drill version date-changelog image-steps clean

help: ## Show what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## Try evergrant with a practice provider: nothing to configure
	$(BIN)/evergrant demo

# Three at once, on two cores too: many tests wait for a clock, a lease or a process most of their time. One of the three
# runs all tests of a file, which share what takes long to start; tests/conftest.py says in which order.
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# The tests start evergrant a hundred times as a process of its own: where the environment forbids Python to keep what
# it compiles, each of them would compile everything again.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/.installed-dev ## Run every test
	$(PYTEST)

everywhere: export PYTHONDONTWRITEBYTECODE :=
everywhere: $(VENV)/.installed-dev ## Run every test, those of pages and calls on both databases too
	$(PYTEST) --everywhere

clients: $(VENV)/.installed-dev ## Try frameworks' MCP adapters, each in an environment of its own
	$(BIN)/python -m pytest -m frameworks tests/mcp --everywhere

# Apart, because before Python 3.14 measuring branches costs more than half as much again as the tests themselves.
coverage: export PYTHONDONTWRITEBYTECODE :=
coverage: $(VENV)/.installed-dev ## Run every test, and measure how much of the code they reach
	$(PYTEST) --cov --cov-report=

check: $(VENV)/.installed-dev ## Format, lint, types, import contracts, the Helm chart, known vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m scripts.check_chart
	$(BIN)/python -m scripts.release.audit

format: $(VENV)/.installed-dev ## Format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.installed-docs ## Build the documentation site into build/docs: open build/docs/index.html
	$(BIN)/python -m scripts.docs.build

bench: $(VENV)/.installed-dev ## Measure everything that has a goal, and say which are reached; QUICK=--quick is a look
	$(BIN)/python benchmarks/goals.py $(QUICK)

upgrade-drill: $(VENV)/.installed-dev ## Upgrade under load: the release before this one on the new schema, and beside this one
	$(BIN)/python benchmarks/upgrade.py

soak: $(VENV)/.installed-dev ## Ten bad minutes: kills, outages, failing providers, and a ledger at the end
	$(BIN)/python benchmarks/soak.py

catalog-audit: $(VENV)/.installed-dev ## Compare the app library with what public packages say (needs pip, npm and a network)
	$(BIN)/python -m scripts.catalog_audit

catalog-table: $(VENV)/.installed-dev ## Write docs/providers.md anew, from the entries and the last audit
	$(BIN)/python -m scripts.provider_table

screenshots: $(VENV)/.installed-dev ## Take the pictures of README and docs anew (needs Chromium, and port 8420)
	$(BIN)/python -m scripts.screenshots

locales: $(VENV)/.installed-dev ## Bring the visitors' pages' words up to date in every language, and compile them
	$(BIN)/python -m scripts.locales

lock: $(VENV)/.uv ## Resolve the locks again; UPGRADE=--upgrade takes newer releases
	$(UV_COMPILE) --extra aws --extra mcp --extra otel --output-file requirements.lock pyproject.toml
	$(UV_COMPILE) --group build --output-file requirements-build.lock
	$(UV_COMPILE) --extra mcp --extra otel --group dev --constraint requirements.lock --constraint requirements-build.lock \
		--output-file requirements-dev.lock pyproject.toml
	$(UV_COMPILE) --group docs --constraint requirements-dev.lock --output-file requirements-docs.lock
	set -e; for name in $(basename $(wildcard tests/mcp/environments/*.in)); do \
		$(UV_COMPILE) --output-file $$name.txt $$name.in; \
	done

audit: $(VENV)/.installed-dev ## Ask whether a locked package has a known vulnerability (needs a network)
	$(BIN)/python -m scripts.release.audit

dist: $(VENV)/.installed-dev ## Build the wheel and the sdist into dist: the same checkout gives the same bytes
	$(BIN)/python -m hatchling build -d dist

sbom: $(VENV)/.installed-dev ## Write build/sbom.cdx.json: what an installation consists of
	$(BIN)/python -m scripts.release.sbom

version: $(VENV)/.installed-dev ## Begin to work on the version VERSION=1.2.3, when the one before is tagged
	$(BIN)/python -m scripts.release.version set $(VERSION)

date-changelog: $(VENV)/.installed-dev ## Date this version's section of the change log, before its tag
	$(BIN)/python -m scripts.release.version date

image-steps: $(VENV)/.installed-dev ## Run the Dockerfile's steps as commands in a folder, and start what they make (needs a network)
	$(BIN)/python -m scripts.release.image_steps

pin-images: $(VENV)/.installed-dev ## Write the digests of the base images into their files (needs a network)
	$(BIN)/python -m scripts.release.images

clean: ## Remove what these commands made
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage .coverage.* .clients

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "evergrant needs Python 3.11 or newer: make PYTHON=python3.13")'
	$(PYTHON) -m venv $(VENV)

# The build backend comes from a lock of its own and is used in place: pip resolves and fetches nothing by itself.
$(VENV)/.installed: requirements.lock requirements-build.lock pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements.lock -r requirements-build.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# Beside what is there already, runtime or development: the lock has the same versions as theirs.
$(VENV)/.installed-docs: requirements-docs.lock $(VENV)/.installed
	$(PIP) install --quiet --require-hashes -r requirements-docs.lock
	@touch $@

$(VENV)/.uv: | $(BIN)/python
	$(PIP) install --quiet uv
	@touch $@
