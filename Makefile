# The commands of this repository. `make` alone lists them.

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint fmt generated brokers acceptance faults plans postgresql-servers redis-memory redis-servers shadow fuzz simulate traces bench docs release-check

VENV   := .venv
BIN    := $(VENV)/bin
PY     := $(BIN)/python
STAMP  := $(VENV)/.made
PYTEST := $(PY) -m pytest
ALL    := kafka,rabbitmq,nats,postgresql,redis,sqs

help: ## List the verbs
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
	  awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv with Protoflow, every extra and the development tools

$(STAMP): pyproject.toml scripts/python.sh
	@test -x $(PY) || "$$(scripts/python.sh)" -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade 'pip>=25.1'
	$(PY) -m pip install --quiet --editable '.[all]' --group dev
	@touch $@

demo: setup ## Run the orders example on SQLite: handled, retried, dead-lettered, replayed; ARGS=dashboard: a scene to look at
	@$(PY) examples/orders/demo.py $(ARGS)

test: setup ## Run all tests, or those that ARGS= names: "tests/plugin -x"; with coverage: @.ci/coverage
	@$(if $(ARGS),$(PYTEST) $(ARGS) || test $$? -eq 5,scripts/test.sh)

lint: setup ## Check style, types, import rules, sizes, words and the annotations
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=runtime scripts/lint.sh

fmt: setup ## Format Python and protos
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	$(BIN)/buf format --write

generated: setup ## Generate what is committed: protoflow/v1, compiled templates, golden files
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=runtime scripts/generated.sh

brokers: setup ## Start Kafka, RabbitMQ, NATS, PostgreSQL, Redis and moto and keep them, or stop them: ARGS=down
	PYTHONPATH=runtime $(PY) -m tests.brokers $(or $(ARGS),up)

acceptance: setup ## Run the acceptance suite and print a row for each transport: ARGS="--transport kafka"
	@PROTOFLOW_REQUIRE_BROKERS=$(ALL) PYTHONPATH=runtime $(PY) -m tests.acceptance_report $(ARGS)

faults: setup ## Kill, freeze and cut off brokers and processes, and count the messages
	@PROTOFLOW_FAULTS=long PROTOFLOW_REQUIRE_BROKERS=$(ALL) $(PYTEST) tests/faults tests/inbox/test_kills.py $(ARGS) || test $$? -eq 5

plans: setup ## Claim, settle and ask for the lag on PostgreSQL while a million messages wait
	@PROTOFLOW_PLANS=long $(PYTEST) tests/transports/postgresql/test_plans.py $(ARGS)

postgresql-servers: setup ## Run the PostgreSQL transport's tests on PostgreSQL 13, 14, 16 and 17: ARGS="13 17"
	@PYTHONPATH=runtime $(PY) -m tests.transports.postgresql $(ARGS)

redis-memory: setup ## Acknowledge a million messages on Redis: memory stays flat, also beside a stuck entry
	@PROTOFLOW_REDIS_MESSAGES=1000000 $(PYTEST) tests/transports/redis/test_keeping.py -k flat --timeout 1200

redis-servers: setup ## Run the transport's acceptance suite on a cluster, behind a sentinel, on one server: ARGS=cluster
	@PYTHONPATH=runtime $(PY) -m tests.transports.redis $(ARGS)

shadow: setup ## Replay 100,000 messages through two versions of a handler, and find ten planted differences
	@PROTOFLOW_SHADOW=100000 $(PYTEST) tests/topic_replay/test_shadow.py -k planted -s --timeout 3600 $(ARGS)

fuzz: setup ## Fuzz intake with a million messages: ARGS="--messages N --seed S --brokers kafka,rabbitmq"
	@PYTHONPATH=runtime $(PY) -m tests.fuzz $(ARGS)

simulate: setup ## Run ten thousand seeds, and look for planted bugs: ARGS="--seeds N --as sqlite --planted"
	@PYTHONPATH=runtime $(PY) -m tests.simulation $(ARGS)

traces: setup ## Hold the simulated brokers to the rules of the real ones: ARGS="--seeds N --as sqlite"
	@PYTHONPATH=runtime $(PY) -m tests.simulation.traces $(ARGS)

bench: $(VENV)/.bench ## Measure against raw clients and peers: ARGS="--full --write" writes docs/performance.md
	@PYTHONPATH=runtime $(PY) -m benchmarks $(ARGS)

$(VENV)/.bench: $(STAMP)
	$(PY) -m pip install --quiet --group bench
	@touch $@

docs: setup ## Write the tables in docs/ that come from the code, and build the site: docs/_build/index.html
	PYTHONPATH=runtime $(PY) scripts/docs.py
	PYTHONPATH=runtime $(PY) -m tests.parity.items > docs/parity.md
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build

release-check: $(VENV)/.release ## Check a release: build, contents, metadata, installs, floors, bill of materials: ARGS="build floors"
	@$(PY) -m scripts.release.check $(ARGS)

$(VENV)/.release: $(STAMP)
	$(PY) -m pip install --quiet --group release
	@touch $@
