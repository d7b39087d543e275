# make demo                        install, degrade a photo, restore it, show where the pictures are
# make demo PHOTOS="a.jpg b.jpg"   the same, and restore these photos too
# make test                        install, ruff, mypy, pytest
# Another Python or another place: make test PYTHON=python3.12 VENV=/somewhere

PYTHON ?= python3
VENV ?= .venv
PHOTOS ?=

BIN := $(VENV)/bin
MADE_FROM := pyproject.toml constraints.txt

.PHONY: demo test lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo-installed
	$(BIN)/python -m prefrestore.cli.demo -o demo $(PHOTOS)

# Two workers of one thread each finish sooner than one process of two threads; a file's tests stay together.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.dev-installed
	$(BIN)/ruff check .
	$(BIN)/mypy

# The stamps: an install is made again only when what it was made from changes. The package itself is
# installed editable, so a changed source file needs no new install.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-installed: $(MADE_FROM) | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/.dev-installed: $(MADE_FROM) | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo .pytest_cache .mypy_cache .ruff_cache
