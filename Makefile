# motorsweep: `make run` and `make test` work on a fresh Debian 12 machine; each sets up what it needs first.
# Choices: make run STUDY=my.toml   make run TORCH=... TORCH_INDEX=...   make test PYTEST='-k coil' PROCESSES=4   PYTHON=... PETSC_DIR=...
# (setup.sh says what each of the set-up's choices means.)

STUDY ?= examples/quick.toml
PYTEST ?=
PROCESSES ?= 2
EXTRAS ?=

# Work is spread over processes: one thread in each, unless the caller asks for more.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= $(OMP_NUM_THREADS)
# Data for some of the tests, which say so and skip where there is none.
ifneq ($(wildcard ../shared/data),)
export MOTORSWEEP_DATA ?= $(abspath ../shared/data)
endif

.PHONY: help run test lint format setup setup-dev clean
help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## */\1\t/p' Makefile | expand -t 12

run: setup  ## set up, then run or go on with the study STUDY (default: examples/quick.toml)
	.venv/bin/motorsweep run $(STUDY)

test: lint  ## set up, check the style, run all tests (PYTEST='...' for options and paths; much is waiting: PROCESSES=2)
	.venv/bin/python -m pytest -p no:cacheprovider -n $(PROCESSES) --durations=15 $(PYTEST)

lint: setup-dev  ## check style and format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

format: setup-dev  ## mend style and format
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

setup:  ## only the set-up, in .venv (EXTRAS='eeg view cluster' for more; view draws poses)
	@./setup.sh $(EXTRAS)

setup-dev:
	@./setup.sh dev $(EXTRAS)

clean:  ## remove .venv and what builds and tests leave; never a study, never the wheel cache
	rm -rf .venv build dist *.egg-info .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -not -path './studies/*' -prune -exec rm -rf {} +
