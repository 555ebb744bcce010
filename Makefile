# make study   run the notebooks (PROFILE=smoke|mini|paper, NOTEBOOK=02, ARGS="-p key value")
# make test    run all tests
# make install, make lint, make clean
# Each works alone: what it needs is installed into .venv first, once.

PROFILE  ?= mini
NOTEBOOK ?=
ARGS     ?=
PYTHON   ?=

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install study test lint clean

help:
	@sed -n '/^#/!q; s/^# //p' Makefile

install: $(STAMP)

study: $(STAMP)
	@$(BIN)/cltm run --profile $(PROFILE) $(if $(NOTEBOOK),--notebook $(NOTEBOOK)) $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check .

# The stamp is written last, and .installing lies in .venv until then: an installation that was cut off is made anew,
# for pip would take a half-copied package as installed.
$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'; \
	if [ -e $(VENV)/.installing ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1 \
	    || ! $(BIN)/python -c "$$fits"; then \
	  for python in $(PYTHON) python3.11 python3.12 python3 none; do \
	    if "$$python" -c "$$fits" >/dev/null 2>&1; then break; fi; \
	  done; \
	  if [ "$$python" = none ]; then \
	    echo "No Python 3.11 or 3.12 was found: install one, or name it with make install PYTHON=/path/to/python3.11." >&2; \
	    exit 1; \
	  fi; \
	  echo "Creating $(VENV) with $$python"; \
	  "$$python" -m venv --clear $(VENV) || { \
	    echo "$$python cannot create a virtual environment: install its venv module (Debian: python3.11-venv)." >&2; \
	    exit 1; }; \
	fi; \
	rm -f $@; touch $(VENV)/.installing; \
	echo "Installing the packages of constraints.txt: several minutes the first time, about 6 GB"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'; \
	mv $(VENV)/.installing $@; touch $@

# outputs/ stays: it holds the finished trainings.
clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find cltmlib tests -name __pycache__ -type d -prune -exec rm -rf {} +
