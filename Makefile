# The verbs of the project. Each sets up what it needs in .venv first.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS := 1

.PHONY: setup demo test test-real studies fast lint bench clean

setup: .venv/.ready

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

# only what a run needs: no test tools
.venv/.demo-ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[export]'
	touch $@

demo: .venv/.demo-ready  ## a study on embedded data, in under three minutes; writes runs/demo/report.html
	$(BIN)/transference demo

test: setup  ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

test-real: setup  ## the tests that need real data; TRANSFERENCE_DATA says where
	$(BIN)/python -m pytest -q -m real -n 2 --dist loadfile -o addopts="--strict-markers --strict-config -ra"

studies: setup  ## the studies under examples/studies on real data
	for study in utd_mhad_skeleton utd_mhad_inertial webkb avmnist; do \
	  $(BIN)/transference run examples/studies/$$study.toml --workers 2 || exit 1; done

fast: setup  ## the suite without what is slow
	$(BIN)/python -m pytest -n 2 -q -m "not slow and not real"

lint: setup
	$(BIN)/ruff check src tests benchmarks examples docs
	$(BIN)/ruff format --check src tests benchmarks examples docs
	$(BIN)/mypy

bench: setup
	$(BIN)/python benchmarks/loop.py
	$(BIN)/python benchmarks/study.py

clean:
	rm -rf .venv dist runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
