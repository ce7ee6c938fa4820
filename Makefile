# make demo: the main job on bundled pictures. make test: the quick tests. make held: the speed that is stated.
# Each installs what it needs.

VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test slow held lint install

demo: install
	$(BIN)/polyinr demo -o demo

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

slow: install
	$(BIN)/python -m pytest -m slow

held: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/held.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "polyinr needs Python 3.11 or newer")'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
