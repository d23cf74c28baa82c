# Two commands suffice: `make book` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
ifeq ($(OS),Windows_NT)
  BIN := $(VENV)/Scripts
else
  BIN := $(VENV)/bin
endif
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
DEV := $(BIN)/python -m mtl_course.dev
NB ?=
# Options for JupyterLab; a container that works as root needs ARGS=--allow-root.
ARGS ?=

# One after the other, also with -j: two pips in one environment spoil each other's work, and the
# book and its test build into one folder.
.NOTPARALLEL:
# An environment that was not made to its end is begun anew.
.DELETE_ON_ERROR:

.PHONY: help book zip slides test notebooks run data records diagrams drawings sync publish colab nbgrader clean

help:  ## list the targets
	@$(PYTHON) -c "import re; [print(f'make {t:10} {d}') for t, d in re.findall(r'^(\w+):.*?## (.+)', open('Makefile', encoding='utf-8').read(), re.M)]"

book: $(VENV)/.book  ## build the book (strict) and say where to open it
	$(DEV) book

zip: $(VENV)/.book  ## build the book and pack it as one zip to read offline
	$(DEV) book --zip

test: $(VENV)/.book $(VENV)/.test  ## run every test: package, data, exercises, notebooks, book
	$(DEV) test

slides: $(VENV)/.book  ## make slides of the chapters, into _build/slides (NB=01 for one)
	$(DEV) slides $(NB)

notebooks: $(VENV)/.test  ## re-execute and normalise the notebooks (NB=01 for one)
	$(DEV) sync $(NB)
	$(DEV) execute $(NB)

sync: $(VENV)/.test  ## write the generated cells of the notebooks anew, without running them
	$(DEV) sync $(NB)

run: $(VENV)/.lab  ## open one chapter in JupyterLab: make run NB=01 (as root: ARGS=--allow-root)
	$(DEV) lab $(strip $(NB) $(ARGS))

data: $(VENV)/.test  ## fetch every data set of the course ahead, for work without a network
	$(BIN)/python -m mtl_course.data

records: $(VENV)/.test  ## make the records that are missing, as many as fit: make records BUDGET=800 PROFILE=gpu
	$(BIN)/python -m mtl_course.record all --profile $(or $(PROFILE),gpu) --budget $(or $(BUDGET),800)

diagrams: $(VENV)/.test  ## render the Mermaid sources to SVG (needs npm and Chromium)
	$(DEV) diagrams

drawings: $(VENV)/.test  ## draw the drawings of mechanisms from their sources
	$(DEV) drawings

publish: $(VENV)/.test  ## give the course its address everywhere: make publish URL=https://github.com/you/mtl-course
	$(DEV) publish "$(URL)"

colab: $(VENV)/.test  ## run the notebooks in Colab's own environment (NB=01 for one; needs a Python 3.13)
	$(DEV) colab $(NB)

nbgrader: $(VENV)/.test  ## let nbgrader, in an environment of its own, grade four submissions
	$(BIN)/python .ci/nbgrader.py

clean:  ## remove the built book; the environment stays
	rm -rf _build build dist

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.book: requirements-book.txt | $(VENV)/pyvenv.cfg
	$(PIP) --require-hashes -r requirements-book.txt
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP) -e ".[test]"
	@touch $@

$(VENV)/.lowest: pyproject.toml | $(VENV)/pyvenv.cfg
	$(PIP) uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --resolution lowest-direct -e ".[test]"
	@touch $@

$(VENV)/.lab: $(VENV)/.test
	$(PIP) -e ".[lab]"
	@touch $@
