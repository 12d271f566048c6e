# Every target sets up what it needs: a virtual environment in .venv, installed into again when pyproject.toml changes.
PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
CHECK := 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"expected Python 3.11 or newer, got {v.major}.{v.minor}: make PYTHON=/path/to/python3.11, without a .venv of another")'

.PHONY: demo test test-gpu check bench results clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo   M1+M2 and its supervised baseline, PixelDefend, GAIL, digits from few measurements; runs/demo/report.html"
	@echo "make test   all tests"
	@echo "make check  format, lint, types, and the arrows between packages"
	@echo "make bench  speed, as ratios measured in one run (installs peers into the user's cache)"
	@echo "make results  write docs/results/*.md again from the result cells"

$(VENV)/.installed: pyproject.toml
	@test -x $(PY) || { p=$$(command -v $(PYTHON) || command -v python3) && $$p -c $(CHECK) && $$p -m venv $(VENV); }
	@$(PY) -c $(CHECK)
	@echo "installing (minutes the first time) ..."
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	$(PY) -m apps semi-supervised demo --out runs/demo
	$(PY) -m apps pixeldefend demo --out runs/demo
	$(PY) -m apps imitation demo --out runs/demo
	$(PY) -m apps compressed-sensing demo --out runs/demo

test: $(VENV)/.installed
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder -rs

test-gpu:
	$(or $(wildcard $(PY)),python3) -m pytest -m gpu

check: $(VENV)/.installed
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.installed
	$(PY) -m bench.semi_supervised
	$(PY) -m bench.pixeldefend
	$(PY) -m bench.imitation
	$(PY) -m bench.compressed_sensing

results: $(VENV)/.installed
	$(PY) -m apps results --write

clean:
	rm -rf $(VENV) .bench-venv build *.egg-info
