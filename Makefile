# make demo | install | test | test-all | check | format | clean
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo install test test-all check lint format clean

demo: install
	$(BIN)/python -m scripts demo

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[train,serve,dev]'
	touch $(STAMP)

test: install
	$(BIN)/python -m pytest -m 'not slow'

test-all: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

check: lint test

format: install
	$(BIN)/python -m ruff format .
	$(BIN)/python -m ruff check --fix .

clean:
	rm -rf .venv .flwr .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
