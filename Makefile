# "make" lists what there is. Each step is done once: what it needs is compared by time with what it made.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= python3
PORT ?= 5000
# More arguments for pytest: make test ARGS="-k rooms -x"
ARGS ?=

BIN := .venv/bin
NPM := npm --no-audit --no-fund --loglevel=error
say = @echo "==> $(1)"

.PHONY: help venv demo demo-celery test lint types docs e2e chaos clean python node programs uwsgi gunicorn-25 port-is-free

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Running it

venv: .venv/.installed-dev ## Make .venv with the package and all that its developers need

demo: python node port-is-free .venv/.installed example_app/node_modules/.installed ## Start the example app (PORT=5000)
	@echo "==> Open http://127.0.0.1:$(PORT) in a browser; Ctrl-C stops the server"
	@PORT=$(PORT) exec $(BIN)/python -m example_app

demo-celery: python node port-is-free .venv/.installed-celery example_app/node_modules/.installed ## Start it with Redis and a Celery worker (PORT=5000)
	@scripts/install_programs redis-server
	@exec $(BIN)/python scripts/demo_celery.py --port $(PORT)

# Checking it

lint: .venv/.installed-dev ## Check the style (ruff)
	$(call say,ruff)
	@$(BIN)/ruff check .

types: .venv/.installed-dev ## Check the types (mypy --strict)
	$(call say,mypy --strict flask_realtime)
	@$(BIN)/mypy --strict flask_realtime

test: node lint types docs programs uwsgi gunicorn-25 tests/e2e/node_modules/.installed example_app/node_modules/.installed ## Run everything
	@rm -f .make/pytest*.log .coverage .coverage.*
	@scripts/run_tests $(BIN)/python $(ARGS)
	$(call say,coverage)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report
	@scripts/test_other_pythons $(BIN)/python $(ARGS)
	@tail -qn 1 .make/pytest-unit.log .make/pytest-servers.log .make/pytest-list.log .make/pytest-faults.log .make/pytest-alone.log

e2e: node .venv/.installed-dev programs uwsgi gunicorn-25 tests/e2e/node_modules/.installed example_app/node_modules/.installed ## Run the end-to-end tests only
	@$(BIN)/python -m pytest -m "e2e and not chaos and not alone" --numprocesses 4 --no-loadscope-reorder $(ARGS)
	@$(BIN)/python -m pytest -m "e2e and not chaos and alone" $(ARGS) || [ $$? = 5 ] # ARGS may select none of them

chaos: node .venv/.installed-dev programs uwsgi gunicorn-25 tests/e2e/node_modules/.installed ## Try to break it: the whole list
	@CHAOS=full $(BIN)/python -m pytest -m chaos $(ARGS)

docs: .venv/.installed-dev ## Build the documentation into docs/_build/html
	$(call say,sphinx)
	@$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "==> Open docs/_build/html/index.html"

clean: ## Remove all that was made here
	rm -rf .venv .venv-* .make .coverage .coverage.* htmlcov build dist *.egg-info docs/_build
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -rf example_app/node_modules tests/e2e/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What they need

python:
	@scripts/need_python $(PYTHON)

node:
	@for tool in node npm; do \
	    command -v $$tool >/dev/null || { echo "$$tool is missing; install Node.js 18 or later" >&2; exit 1; }; \
	done

programs: | .make
	@scripts/install_programs chromium nginx haproxy redis-server rabbitmq-server

# Only into .venv: the other Pythons run no servers. Where it can't be had, the next make tries again.
uwsgi: .venv/.installed-dev
	@scripts/install_uwsgi $(BIN)/python || true

# The last one with a worker for eventlet of its own, beside the newest.
gunicorn-25: .make/gunicorn-25/.installed

.make/gunicorn-25/.installed: | .venv/.installed-dev .make
	$(call say,installing gunicorn 25 into .make)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --target .make/gunicorn-25 'gunicorn==25.3.0'
	@touch $@

port-is-free:
	@$(PYTHON) scripts/port_is_free.py $(PORT)

.make:
	@mkdir -p .make

# The last thing that making an environment writes is pip.
.venv/bin/pip: | python .make
	$(call say,making .venv)
	@scripts/make_venv $(PYTHON) .venv

.venv/.installed: setup.cfg pyproject.toml .venv/bin/pip
	$(call say,installing flask_realtime into .venv)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable .
	@touch $@

.venv/.installed-celery: setup.cfg pyproject.toml .venv/bin/pip
	$(call say,installing flask_realtime and Celery into .venv)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[celery,redis]'
	@touch $@ .venv/.installed

.venv/.installed-dev: setup.cfg pyproject.toml .venv/bin/pip
	$(call say,installing flask_realtime and the tools of its developers into .venv)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[test,docs]'
	@touch $@ .venv/.installed .venv/.installed-celery

# "npm ci" where the versions are locked.
.SECONDEXPANSION:
example_app/node_modules/.installed tests/e2e/node_modules/.installed: %/node_modules/.installed: \
		%/package.json $$(wildcard $$*/package-lock.json) | node
	$(call say,installing the npm packages of $*)
	@cd $* && if [ -f package-lock.json ]; then $(NPM) ci; else $(NPM) install --no-package-lock; fi >/dev/null
	@touch $@
