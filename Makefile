# Run from the root of the repository. VENV and PYTHON may be set: make test VENV=~/envs/study
VENV ?= .venv
PYTHON ?= python3
READY := $(VENV)/.ready
SWEEP_READY := $(VENV)/.ready-sweep
BIN := $(VENV)/bin
# DVC finds the python of its stages there
export PATH := $(abspath $(BIN)):$(PATH)

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(SWEEP_READY)  ## make .venv from requirements.lock and requirements-sweep.lock

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $@

$(SWEEP_READY): requirements-sweep.lock $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-sweep.lock
	@touch $@

quickstart: $(READY)  ## the whole pipeline on synthetic images, in .quickstart/
	@$(BIN)/python -m tools.quickstart

repro: $(READY)  ## the whole pipeline on CIFAR-10
	@$(BIN)/dvc repro

charts: $(READY)  ## the page of dvc plots show, for a machine without a network
	@$(BIN)/python -m tools.charts

summary: $(READY)  ## the layers of the four models
	@$(BIN)/python -m tools.summary

readme: $(READY)  ## the README's generated tables and picture, from metrics/ and params.yaml
	@$(BIN)/python -m tools.report

sweep: $(SWEEP_READY)  ## the search, ablation or seeds in a file: make sweep FILE=sweeps/ablation.yaml
	@$(BIN)/python -m sweeps.worker run $(FILE)

lint: $(SWEEP_READY)  ## format, lint rules, types, and whether the README is up to date
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/python -m tools.report --check

test: lint  ## lint, then all tests
	@$(BIN)/pytest

bench: $(READY)  ## training speed on this machine; KERAS=<a python with Keras and TensorFlow> compares
	@$(BIN)/python -m tests.bench $(if $(KERAS),--keras $(KERAS))

clean:  ## remove .quickstart/, charts and tool caches; keep data, models and results
	rm -rf .quickstart .mypy_cache .pytest_cache .ruff_cache .hypothesis dvc_plots runs/charts runs/offline.html

.DEFAULT_GOAL := help
.PHONY: help setup quickstart repro charts summary readme sweep lint test bench clean
