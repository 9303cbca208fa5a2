# The commands of this project. `make demo` and `make test` need nothing but Python 3.11+, pip and gcc.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1

.PHONY: demo demo-pendulum demo-online test test-fast check format docs bench bench-gpu bench-quick pages build clean

demo: $(STAMP)  ## CartPole: train, evaluate, save, reload, export; about 3 minutes
	$(BIN)/python examples/cartpole.py

demo-pendulum: $(STAMP)  ## Pendulum with TD3+BC
	$(BIN)/python examples/pendulum.py

demo-online: $(STAMP)  ## Pendulum with IQL, offline and then online
	$(BIN)/python examples/online.py

test: $(STAMP) check  ## lint, types, spelling, and all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(STAMP)  ## tests without the slow ones
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)  ## every code block of README and docs, executed
	$(BIN)/python -m pytest tests/test_docs.py

bench: $(STAMP)  ## all figures, beside releases 1.1.1 and 2.8.1 of the original and stable-baselines3; builds .venv-peers once
	$(BIN)/python benchmarks/run_all.py
	$(BIN)/python benchmarks/compare.py --docs
	$(BIN)/python benchmarks/online_speed.py --docs

bench-gpu: $(STAMP)  ## updates a second on a GPU, captured and not; under 8 minutes
	$(BIN)/python benchmarks/gpu.py

bench-quick: $(STAMP)  ## updates a second against our own plain path, 2 minutes
	$(BIN)/python benchmarks/compare.py --no-peers

pages: $(STAMP)  ## parameter and score tables of docs/algorithms
	$(BIN)/python docs/generate.py

build: $(STAMP)  ## sdist and wheel in dist/
	$(BIN)/python -m build

# torch first and alone, at the pinned CPU build: whatever comes later finds it installed.
$(STAMP): constraints.txt pyproject.toml setup.py $(wildcard d3rlpy/dataset/*.pyx)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
