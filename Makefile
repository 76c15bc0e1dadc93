# Everything runs in .venv, which the first target that needs it makes. GNU make 3.81 (macOS) is enough.

RUN    := .venv/bin/python
MODERN := -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
INTACT := $(RUN) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
# The first Python that is new enough; PYTHON=/path/to/python on the command line chooses another.
PYTHON ?= $(shell for each in python3 python3.13 python3.12 python3.11; do $$each $(MODERN) && echo $$each && break; done)

.PHONY: help demo test weights slow lint benchmark report rebuild

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

demo: .venv/.installed  ## digits from shipped weights, then two minutes of training before your eyes
	@$(RUN) src quickstart $(ARGS)

test: .venv/.installed  ## the fast tests; ARGS="-k sampler" passes options on to pytest
	@$(RUN) -m pytest $(ARGS)

weights: .venv/.installed  ## train, score and store all that is shipped and not there; ARGS="--only default"
	@$(RUN) src weights $(ARGS)

slow: .venv/.installed  ## the tests that take minutes
	@$(RUN) -m pytest -m slow $(ARGS)

lint: .venv/.installed  ## ruff's checks and formatting and mypy's types, changing nothing
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

benchmark: .venv/.installed  ## training speed of each preset against a textbook loop
	@$(RUN) benchmarks/training.py

report: .venv/.installed  ## Report/report.pdf and docs/results.md, their numbers and pictures from the runs' JSON and the weights (needs TeX)
	@command -v latexmk >/dev/null && kpsewhich booktabs.sty natbib.sty >/dev/null || { \
	  echo "TeX is needed (on Debian and Ubuntu: apt install latexmk texlive-latex-recommended texlive-fonts-recommended)" >&2; exit 1; }
	@$(RUN) Report/write.py $(ARGS)
	@cd Report && latexmk -g -pdf -interaction=nonstopmode -halt-on-error -quiet report.tex >/dev/null || { tail -n 30 report.log >&2; exit 1; }
	@echo "wrote Report/report.pdf"

# The package itself, by a link to src/: changed code is there at once.
.venv/.installed: .venv/.requirements pyproject.toml
	@$(RUN) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# .unfinished becomes .requirements only when pip is done, so an install that was killed is begun again from nothing. A
# venv that lost its Python is made anew; one that somebody made by hand is kept and only given what it lacks.
.venv/.requirements: requirements.txt requirements-dev.txt $(shell $(INTACT) || echo rebuild)
	@test ! -e .venv/.unfinished && $(INTACT) || { \
	  $(PYTHON) $(MODERN) || { echo "Python 3.11 or newer is needed: install one, or say where it is with make PYTHON=/path/to/python3" >&2; exit 1; }; \
	  $(PYTHON) -m venv --clear .venv >/dev/null || { echo "$(PYTHON) could not make .venv (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }; \
	}
	@touch .venv/.unfinished
	$(RUN) -m pip install --disable-pip-version-check --requirement requirements-dev.txt
	@mv .venv/.unfinished $@
