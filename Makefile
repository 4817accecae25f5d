# make run ARGS="task=copy memory=dense"   make test PYTEST_ARGS="-k copy"
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PYTEST_ARGS ?=
JOBS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q
RUN_READY := $(VENV)/.mannlab-run
DEV_READY := $(VENV)/.mannlab-dev

.DEFAULT_GOAL := help
.PHONY: help run test lint format bench docs clean

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'
	@echo '  ARGS="..." is handed to the program, PYTEST_ARGS="..." to pytest, PYTHON=python3.12 picks the interpreter.'

run: $(RUN_READY) ## install if needed, then train: make run ARGS="task=copy memory=dense"
	@$(BIN)/python -m mannlab $(ARGS)

test: $(DEV_READY) ## install if needed, then run the tests
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

lint: $(DEV_READY) ## ruff and mypy, exactly what CI and pre-commit run
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

format: $(DEV_READY) ## let ruff mend layout and imports
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

bench: $(RUN_READY) ## measure speed: make bench ARGS="dense"
	@$(BIN)/python -m mannlab bench $(ARGS)

docs: $(DEV_READY) ## build the site: build/site/index.html
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

clean: ## remove caches and build products; leaves .venv and outputs/
	@rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "mannlab: there is no '$(PYTHON)' here. Name a Python 3.11, 3.12 or 3.13: make run PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "mannlab: needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is $$("$(PYTHON)" -V 2>&1)." >&2; \
		echo "Name another: make run PYTHON=python3.12" >&2; exit 1; }
	@echo "mannlab: making $(VENV) (once)"
	@"$(PYTHON)" -m venv "$(VENV)"

$(RUN_READY): pyproject.toml | $(BIN)/python
	@echo "mannlab: installing into $(VENV) (once; torch is large)"
	@$(PIP) -e '.[text]'
	@touch $@

$(DEV_READY): pyproject.toml | $(BIN)/python
	@echo "mannlab: installing into $(VENV), with the tools for development (once; torch is large)"
	@$(PIP) -e '.[dev]'
	@touch $(RUN_READY) $@
