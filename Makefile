# Candor. Each command sets itself up in .venv, is safe to repeat and quick the second time.
#
#   make tutorial   execute the course into build/notebooks and write build/report.html
#   make test       run the tests
#   make app        serve the explorer, a page to look at a model with
#   make lab        open JupyterLab on the notebooks
#   make video      build the film of the course: build/video/candor.mp4 (needs ffmpeg and Festival)
#   make clean      delete what was built; .venv and data/cache stay, since they are slow to make again
#
# PYTHON=python3.12   the interpreter for .venv         PROFILE=full   the long version of the course
# ARGS="…"            handed on to the command, for example: make test ARGS="tests/bias -x"
#
# Where there are two cores, two processes share the tests; with ARGS, pytest does what they say, in one process.

PYTHON  ?=
PROFILE ?= quick
ARGS    ?=
PY      := .venv/bin/python
SHARED  := -n logical --maxprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: help tutorial test app lab video install clean

help:
	@sed -n 's/^#  *\(make .*\)/\1/p' Makefile

tutorial: install
	@$(PY) notebooks/run.py --profile $(PROFILE) $(ARGS)

test: install
	@$(PY) -m pytest $(or $(ARGS),$(SHARED))

app: install
	@$(PY) -m helpers app $(ARGS)

lab: install
	@$(PY) -m jupyterlab --notebook-dir=notebooks $(ARGS)

video: install
	@$(PY) -m video.build $(ARGS)

install:
	@PYTHON="$(PYTHON)" sh .ci/install

clean:
	rm -rf build .pytest_cache .hypothesis .ruff_cache candor_workbench.egg-info
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
