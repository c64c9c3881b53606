# The two commands to know: `make demo` and `make test`. Both set themselves up on a fresh Linux machine with Python 3.11.
PYTHON ?= python3.11
BIN := .venv/bin
export COMEM_HOME ?= $(CURDIR)/runs
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo serve train-demo test test-slow lint clean

demo: .venv/installed  ## build the demo's knowledge base with Ray jobs, serve it, ask it questions
	scripts/demo.sh ask

serve: .venv/installed  ## the same, and keep serving on http://127.0.0.1:8000 until interrupted
	scripts/demo.sh serve

train-demo: .venv/installed  ## train the demo's model from nothing (may be killed and run again; SIZES=large on a GPU)
	SIZES=$(SIZES) scripts/train_demo.sh

test: .venv/installed lint  ## reports are looked at in Chromium; without one, and no means to install it, they are not
	scripts/chromium.sh
	pytest

test-slow: .venv/installed
	pytest -m slow

lint: .venv/installed
	ruff check
	ruff format --check
	mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e '.[cpu,captions,demo,dev]'
	touch $@

clean:  ## removes what `make` made: the virtual environment and the demo's runs
	rm -rf .venv runs
