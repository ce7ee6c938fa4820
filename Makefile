# make demo: the main job on bundled images. make test: the quick tests. make numeric: those that compute, as other
# processors would. make speed: the speed that is stated. make man: manual pages in man/. Each installs what it needs.

VENV := .venv
BIN := $(VENV)/bin

# What other processors compute with: PyTorch without AVX, or with AVX2 alone; MKL's and oneDNN's oldest code.
# Elsewhere than on x86 these change nothing. Two threads that wait passively leave others the processor.
OTHERS := ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41
NUMERIC := tests/models tests/rendering tests/discriminator tests/training tests/inversion tests/latents

.PHONY: demo test numeric slow speed lint man install

demo: install
	$(BIN)/polyinr demo -o demo

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

numeric: install
	set -e; for other in $(OTHERS); do \
	  echo "$$other, one thread in each of two processes"; \
	  env $$other $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(NUMERIC); \
	  echo "$$other, two threads"; \
	  env $$other OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest $(NUMERIC); \
	done

slow: install
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadfile

speed: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/speed_check.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

man: install
	$(BIN)/python docs/write_man.py man/man1

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -x $(BIN)/python || python3 -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and "polyinr needs Python 3.11 or newer")'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
