# The two commands to know: `make demo` and `make test`. Both install what they need on a fresh Linux machine with
# Python 3.11. While you work on the code: `make test-unit` (no Ray, three to four minutes) and `make lint`.
# Ports: `make serve PORT=8001 DASHBOARD_PORT=8266`.
PYTHON ?= python3.11
BIN := .venv/bin
# Tests that run two at a time. Those that start Ray, train, or measure seconds run one after the other.
TOGETHER := not slow and not gpu and not ray and not example and not timing
export COMEM_HOME ?= $(CURDIR)/runs
export PORT ?= 8000
export DASHBOARD_PORT ?= 8265
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo serve train-demo test test-unit test-slow lint clean

demo: .venv/installed  ## builds the demo's knowledge base with Ray jobs, serves it, asks it questions
	scripts/demo.sh ask

serve: .venv/installed  ## the same, but keeps serving on http://127.0.0.1:$(PORT) until interrupted
	scripts/demo.sh serve

train-demo: .venv/installed  ## trains the demo's model from nothing; resumes when run again; SIZES=large on a GPU
	SIZES=$(SIZES) examples/countries/train.sh

test: .venv/installed lint  ## all tests; those of the report pages need Chromium, and are skipped without
	scripts/chromium.sh
	pytest -n 2 -m '$(TOGETHER)'
	pytest -m 'not slow and not gpu and (ray or example or timing)'

test-unit: .venv/installed  ## the tests that need neither Ray nor the example's models
	pytest -n 2 -m '$(TOGETHER)' --ignore=tests/serve

test-slow: .venv/installed  ## tests that take minutes each
	pytest -m slow

lint: .venv/installed  ## style and types
	ruff check
	ruff format --check
	mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e '.[cpu,captions,demo,dev]'
	touch $@

clean:  ## removes the virtual environment and the demo's runs
	rm -rf .venv runs
