# make demo               the main job on real input; EXECUTOR=ray or serial for another executor
# make test               the whole test suite
# make cluster            what goes beyond one machine: real Ray clusters, a real S3 server
# make browser            the report in a real Chromium (Debian: chromium, chromium-driver)
# make check              linters, types, import contracts
# make docs               builds the documents, runs their code; UPDATE=1 writes what was printed into them
# make bench              benchmarks, peers beside us in the same run
# make guard              is anything far slower than the same work by hand? For CI
# make chaos              random kills: is anything lost or doubled? KILLS=100

PYTHON   ?= python3
EXECUTOR ?=
KILLS    ?= 100
BIN      := .venv/bin

.PHONY: demo test cluster browser check docs bench guard chaos clean

demo: .venv/installed
	$(BIN)/python -m datasets.demo $(if $(EXECUTOR),--executor $(EXECUTOR))

test: .venv/test
	$(BIN)/python -m pytest

cluster: .venv/test
	$(BIN)/python -m pytest -m cluster

browser: .venv/browser
	$(BIN)/python -m pytest -m browser tests/browser

check: .venv/check
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" basedpyright
	PATH="$(CURDIR)/$(BIN):$$PATH" basedpyright --verifytypes batchflow --ignoreexternal > .venv/types.txt || (cat .venv/types.txt; false)
	$(BIN)/lint-imports
	$(BIN)/codespell batchflow benchmarks datasets docs tests *.md

docs: .venv/docs
	$(BIN)/python -m pytest docs -o addopts='--strict-markers --strict-config -p no:cacheprovider'
	$(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky --quiet docs build/docs

bench: .venv/bench
	$(BIN)/python -m benchmarks

guard: .venv/test
	$(BIN)/python -m benchmarks.guard

chaos: .venv/test
	$(BIN)/python -m benchmarks.chaos --kills $(KILLS)

.venv/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "batchflow needs Python 3.11 or later: make PYTHON=python3.x")'
	$(PYTHON) -m venv .venv
	touch $@

.venv/installed: .venv/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/test .venv/browser .venv/check .venv/docs .venv/bench: .venv/installed
	$(BIN)/python -m pip install --quiet --editable '.[$(notdir $@)]'
	touch $@

clean:
	rm -rf .venv build demo-out datasets/made
