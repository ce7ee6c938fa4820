# make demo: the main job on bundled images. make test: the quick tests. make numeric: those that compute, as other
# processors would. make speed: the speed that is stated. make man: manual pages in man/. Each installs what it needs.

VENV := .venv
BIN := $(VENV)/bin

# What other processors compute with: PyTorch without AVX, or with AVX2 alone; MKL's and oneDNN's oldest code.
# Elsewhere than on x86 these change nothing. Each with one thread and with two, which wait passively; two runs at a time.
OTHERS := ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 MKL_CBWR=COMPATIBLE ONEDNN_MAX_CPU_ISA=SSE41
NUMERIC := tests/models tests/rendering tests/discriminator tests/training tests/inversion tests/latents

.PHONY: demo test numeric slow speed lint man install

demo: install
	$(BIN)/polyinr demo -o demo

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

numeric: install
	@for threads in 1 2; do for other in $(OTHERS); do echo "$$other OMP_NUM_THREADS=$$threads"; done; done | \
	xargs -P 2 -I {} sh -c 'said=$$(env {} OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -p no:cacheprovider \
	  -m "not slow and not no_numbers" $(NUMERIC) 2>&1); code=$$?; printf "%s\n%s\n" "{}" "$$said"; exit $$code'

slow: install
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist worksteal

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
