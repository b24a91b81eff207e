# What people type. `make` alone explains itself.

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint fmt protos golden brokers acceptance faults fuzz bench bench-full docs

VENV   := .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
STAMP  := $(VENV)/.made
PYTEST := $(PY) -m pytest
SOURCE := protoc_gen_protoflow runtime/protoflow

help: ## Explain the verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
	  awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup: $(STAMP) ## Make .venv with Protoflow, every extra and the development tools

$(STAMP): pyproject.toml scripts/python.sh
	@test -x $(PY) || "$$(scripts/python.sh)" -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade 'pip>=25.1'
	$(PY) -m pip install --quiet --editable '.[all]' --group dev
	@touch $@

demo: setup ## Run the orders example on SQLite: handled, retried, dead-lettered, replayed
	@$(PY) examples/orders/demo.py

test: setup ## Run all tests; brokers that can be had are started by the tests
	@$(if $(ARGS),$(PYTEST) $(ARGS) || test $$? -eq 5,scripts/test.sh)

lint: setup ## Check style, types, import rules and the annotations
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=runtime scripts/lint.sh

fmt: setup ## Format Python and protos
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/buf format --write

protos: ## Generate runtime/protoflow/v1 from proto/ with pinned tools
	scripts/protos.sh

golden: setup ## Accept what the plugin generates now as the expected files; read the diff
	$(PYTEST) tests/plugin tests/golden --update-golden $(ARGS)
	git --no-pager diff --stat -- tests/golden

brokers: setup ## Start Kafka, RabbitMQ and NATS and keep them: python -m tests.brokers down
	PYTHONPATH=runtime $(PY) -m tests.brokers up

acceptance: setup ## Run the one suite on every transport; a row for each at the end
	@PROTOFLOW_REQUIRE_BROKERS=kafka,rabbitmq,nats PYTHONPATH=runtime \
	  $(PY) -m tests.acceptance_report $(ARGS)

faults: setup ## Kill, freeze and cut off brokers and processes, and count the messages
	@PROTOFLOW_FAULTS=long PROTOFLOW_REQUIRE_BROKERS=kafka,rabbitmq,nats $(PYTEST) tests/faults $(ARGS) || test $$? -eq 5

fuzz: setup ## Fuzz what is received with a million messages: ARGS="--messages N --seed S --brokers kafka,rabbitmq"
	@PYTHONPATH=runtime $(PY) -m tests.fuzz $(ARGS)

bench: $(VENV)/.bench ## Measure against raw clients and peers: the short form, a row a target
	@PYTHONPATH=runtime $(PY) -m benchmarks $(ARGS)

bench-full: $(VENV)/.bench ## The long form, which writes docs/performance.md
	@PYTHONPATH=runtime $(PY) -m benchmarks --full --write $(ARGS)

$(VENV)/.bench: $(STAMP)
	$(PY) -m pip install --quiet --group bench
	@touch $@

docs: setup ## Write the tables in docs/ that come from the code
	PYTHONPATH=runtime $(PY) scripts/docs.py
	PYTHONPATH=runtime $(PY) -m tests.parity.items > docs/parity.md
