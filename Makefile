# Two commands: `make repro` and `make test`. Each makes .venv from a lock first, where that is missing or out of date.
.NOTPARALLEL:
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# The lock: cpu or gpu. `make repro DEVICE=cpu` overrules what is found here.
ifdef DEVICE
CHOSEN := named
else
CHOSEN := found
DEVICE := $(shell nvidia-smi -L 2>/dev/null | grep -q GPU && echo gpu || echo cpu)
endif
LOCK := requirements/$(DEVICE).txt
# The stamp is written last and is named for the lock's content: an interrupted install starts again, a changed lock too.
STAMP := .venv/.lock-$(DEVICE)-$(shell sha256sum < $(LOCK) | cut -c 1-16)
TORCH_CPU_INDEX := https://download.pytorch.org/whl/cpu

# What the jobs run with. PYTHONPATH is relative on purpose: `dvc exp run --temp` works in a copy of the tree, and the copy's
# code is what must run there.
export PYTHONPATH := src
export PYTHONHASHSEED := 0
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
# Freed memory stays with the process, which saves a tenth of a training's time on a CPU; but for blocks of 64 MiB and more,
# which would add up to a gigabyte.
export MALLOC_MMAP_THRESHOLD_ := 67108864
export MALLOC_TRIM_THRESHOLD_ := 2147483647
JOB = env PATH="$(CURDIR)/.venv/bin:$$PATH"

.PHONY: help repro recipe shell seeds rounds final test check lock
help:  ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/\1|\2/p' Makefile | awk -F '|' '{ printf "make %-7s %s\n", $$1, $$2 }'
	@echo 'ARGS="..." is handed on: make repro ARGS="-s adapter", make test ARGS="-k pairs", make lock ARGS="--upgrade-package trl"'

repro: $(STAMP)  ## conversations to a measured, quantised model; only what changed is computed again
	@$(JOB) python requirements/engines.py $(LOCK)
	@$(JOB) python -m mothertongue.check
	@$(JOB) python -m mothertongue.experiments note
	$(JOB) dvc repro $(ARGS)
	@$(JOB) python -m mothertongue.check
	@$(if $(ARGS),true,sed -n '/^| | /,/^$$/p' metrics/report.md; echo metrics/report.md)

recipe: $(STAMP)  ## NAME=spanish: replace params.yaml by recipes/<NAME>.yaml, and print what changed
	@$(JOB) python -m mothertongue.recipes '$(NAME)'

shell: $(STAMP)  ## a shell with .venv and the environment of these targets, for DVC's own commands
	@$(JOB) bash

# Experiments run in a copy of what git knows, with uncommitted changes but without new files: `git add` those first.
seeds: N ?= 3
seeds: repro  ## N=3 trainings in all, with the seed of each step and the next ones; their range is in the report
	@$(JOB) python -m mothertongue.experiments seeds $(N)
	$(JOB) dvc repro report

rounds: N ?= 2
rounds: $(STAMP)  ## N=2 rounds in which a model learns from its own judgments, as experiments round-1, round-2, ...
	@$(JOB) python requirements/engines.py $(LOCK)
	@$(JOB) python -m mothertongue.check
	@$(JOB) python -m mothertongue.experiments note
	@$(JOB) python -m mothertongue.rounds $(N)
	@sed -n '/^| /p' metrics/rounds.md

final: repro  ## metrics/final.md: the report on split test; made once, when all is chosen
	@$(JOB) python -m mothertongue.experiments final

test: $(STAMP)  ## all tests, those with the real engines too
	$(JOB) python -m pytest $(ARGS)

check: $(STAMP)  ## ruff, mypy --strict and the fast tests
	$(JOB) ruff check
	$(JOB) ruff format --check
	$(JOB) mypy
	$(JOB) python -m pytest -m "not slow" $(ARGS)

# uv keeps the versions in the lock; ARGS="--upgrade" upgrades them. The CPU build of torch comes from PyTorch's
# own index, or from the folder that UV_FIND_LINKS names. uv is no part of the lock: install it with `pipx install uv`.
lock:  ## requirements/*.txt anew from pyproject.toml and requirements/*.overrides.txt (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv on the PATH, for example from: pipx install uv" >&2; exit 1; }
	@for device in cpu gpu; do \
	  index=; \
	  if [ $$device = cpu ] && [ -z "$${UV_FIND_LINKS:-}" ]; then \
	    index="--extra-index-url $(TORCH_CPU_INDEX) --index-strategy unsafe-best-match"; \
	  fi; \
	  uv pip compile --quiet pyproject.toml --extra $$device --extra demo --extra remote --extra dev \
	    --override requirements/$$device.overrides.txt \
	    --python-version 3.11 --python-platform x86_64-manylinux_2_28 $$index \
	    --annotation-style line --custom-compile-command "make lock  (Linux x86_64, Python 3.11; see the Makefile)" \
	    --output-file requirements/$$device.txt $(ARGS) > /dev/null; \
	  echo "requirements/$$device.txt: $$(grep -c '==' requirements/$$device.txt) packages"; \
	done

# The venv is made from nothing each time, so that it has exactly what the lock names. PIP_CONSTRAINT also pins the build
# tools of the few source packages.
$(STAMP): export PIP_DISABLE_PIP_VERSION_CHECK := 1
$(STAMP):
	@echo "making .venv from $(LOCK), once, in some minutes (log: .venv/pip.log)"
	@python=; \
	for name in python3.11 python3 python; do \
	  python=$$($$name -c 'import sys, venv, ensurepip; sys.version_info[:2] == (3, 11) or sys.exit(1); \
	    print(sys._base_executable)' 2>/dev/null) && break; \
	done; \
	[ -n "$$python" ] || { echo "make needs Python 3.11 with venv: no such python3.11, python3 or python on the PATH" >&2; exit 1; }; \
	"$$python" requirements/machine.py $(DEVICE) $(LOCK) $(CHOSEN); \
	"$$python" -m venv --clear .venv
	@pip() { .venv/bin/python -m pip "$$@" >> .venv/pip.log 2>&1; }; \
	torch=$$(grep -o '^torch==[^ ]*' $(LOCK)); \
	{ [ $(DEVICE) = gpu ] || pip install --no-deps "$$torch" || { \
	    echo "no $$torch in the plain registry: trying PyTorch's own index for it"; \
	    pip install --no-deps --index-url $(TORCH_CPU_INDEX) "$$torch"; }; } && \
	PIP_CONSTRAINT=$(LOCK) pip install --no-deps -r $(LOCK) && \
	pip install --no-deps --no-build-isolation -e . || { \
	  grep '^ERROR' .venv/pip.log | tail -n 3 >&2 || true; \
	  echo "the install from $(LOCK) failed: .venv/pip.log has the details" >&2; exit 1; }
	@touch $@
