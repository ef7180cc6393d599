SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
EXTRAS := train,serve,dev
LOCK := build/lock
# One worker a core, at most eight; the tests of one file stay together. `make test PARALLEL=` runs them one by one.
PARALLEL ?= --numprocesses logical --maxprocesses 8 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo demo-continue install test test-all lint check format lock clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 12

demo: install ## Make sample data and train on three simulated nodes, one of which lies
	$(BIN)/python -m scripts demo

demo-continue: install ## Continue a dense model on the text of three owners, against each alone and against all in one place
	$(BIN)/python -m scripts demo continue

install: $(STAMP) ## Create .venv with everything that running and testing needs

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python $(PIP_INSTALL) --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $(STAMP)

test: install ## Run the tests, without those that start real servers or train for long
	$(BIN)/python -m pytest -m 'not slow' $(PARALLEL)

test-all: install ## Run all tests
	$(BIN)/python -m pytest

lint: install ## Check format, style and types
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

check: lint test ## Run what continuous integration runs

format: install ## Format the code and mend what the linter can
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

lock: ## Write constraints.txt anew: the newest versions that pyproject.toml allows, torch as it was
	rm -rf $(LOCK)
	$(PYTHON) -m venv $(LOCK)
	grep '^torch==' constraints.txt > $(LOCK)/torch.txt
	$(LOCK)/bin/python $(PIP_INSTALL) --constraint $(LOCK)/torch.txt --editable '.[$(EXTRAS)]'
	grep '^#' constraints.txt > $(LOCK)/constraints.txt
	($(LOCK)/bin/python -m pip freeze --exclude-editable | grep -v '^torch[ =]'; cat $(LOCK)/torch.txt) \
	  | LC_ALL=C sort -f >> $(LOCK)/constraints.txt
	mv $(LOCK)/constraints.txt constraints.txt
	rm -rf $(LOCK)

clean: ## Remove what make and the tools have made; data, runs and caches of tokens stay
	rm -rf .venv .flwr .mypy_cache .pytest_cache .ruff_cache .hypothesis build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
