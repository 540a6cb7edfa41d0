# Everything that is done with this repository. Each target does its own set-up, once, in .venv.
# Needs make and Python 3.11, 3.12 or 3.13; to name one: make PYTHON=/path/to/python3.12 run

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
PIP := $(PY) -m pip --disable-pip-version-check --no-input
# Pinned, so that two people who lock on one day get one file.
UV := uv==0.13.9

.DEFAULT_GOAL := help
.PHONY: help run ask test lint bench lock setup clean

help:  ## Show this list.
	@echo 'make TARGET, where TARGET is one of:'
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/  \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "%-10s%s\n", $$1, $$2 }'

run: $(READY)  ## Start the server; settings come from OUZEL_... variables.
	@exec $(PY) -m ouzel.cli serve

# The question goes through the environment, so that no shell or make reads what is in it.
ask: export QUESTION = $(value Q)
ask: $(READY)  ## Ask the running server: make ask Q="Why is the sky blue?"
	@test -n "$$QUESTION" || { echo 'Say what to ask: make ask Q="Why is the sky blue?"' >&2; exit 2; }
	@exec $(PY) -m ouzel.cli ask -- "$$QUESTION"

test: $(READY)  ## Run all tests; the first time fetches about 1.2 GB of weights.
	$(PY) -m pytest

lint: $(READY)  ## Check style, types and who imports whom.
	$(PY) -m ruff check src tests bench
	$(PY) -m ruff format --check src tests bench
	$(PY) -m mypy
	$(PY) -m pytest -q tests/test_architecture.py

bench: $(READY)  ## Measure speed, as ratios against the engine asked directly.
	@exec $(PY) -m bench

lock: $(READY)  ## Solve the dependencies again into requirements.lock.
	$(PIP) install --quiet '$(UV)'
	printf 'hatchling\neditables\n' | $(PY) -m uv pip compile pyproject.toml - --extra dev \
	  --universal --python-version 3.11 --generate-hashes --no-emit-index-url --upgrade --quiet \
	  --custom-compile-command 'make lock' --output-file requirements.lock

setup: $(READY)  ## Only the set-up.

clean:  ## Remove the virtual environment and what tools left behind.
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The stamp is written last: a set-up that was interrupted is done again.
$(READY): requirements.lock pyproject.toml
	@PYTHON='$(PYTHON)' VENV='$(VENV)' sh .ci/venv
	@echo 'Installing what is pinned in requirements.lock into $(VENV) (once, about a minute) ...'
	@$(PIP) install --quiet --require-hashes --only-binary :all: --requirement requirements.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
