# Everything a person or CI does with this repository. `make help` lists it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: setup redis-server fmt check test test-fast test-schemathesis test-clients deploy-check manifests test-triton test-vllm proto conformance bench serve lock clean help

setup: $(STAMP)  ## make .venv from the lock, and install penstock into it

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	# openvino comes without what it names as needed beside numpy: its telemetry.
	grep -v ^openvino== requirements.lock | $(BIN)/python -m pip install --quiet --requirement /dev/stdin
	$(BIN)/python -m pip install --quiet --no-deps --constraint requirements.lock openvino
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	# The bundled model's first start need not lower it then: 6 s. Where this fails, it does.
	-$(BIN)/python -m engines.openvino.lowering_process engines/bundled/penstock_tiny float32 \
		"$$HOME/.cache/penstock/graphs" 4000000000
	touch $(STAMP)

# Tests run on a real Redis. Without root, or where there are no such packages, they are skipped.
redis-server:
	@command -v redis-server >/dev/null || [ "$$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null || \
		{ apt-get install --quiet --yes --no-install-recommends redis-server >/dev/null || \
		(apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends redis-server); } \
		>/dev/null 2>&1 || echo "redis-server could not be installed: its tests are skipped"

fmt: $(STAMP)  ## format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only --quiet .

check: $(STAMP)  ## format, lint, types, layers, sizes: everything but behaviour
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/house

test: $(STAMP) redis-server  ## all tests
	$(BIN)/pytest -q

test-fast: $(STAMP)  ## the tests that take seconds
	$(BIN)/pytest -q -m "not slow" tests/house tests/unit tests/property

test-schemathesis: $(STAMP)  ## 20,000 requests generated from openapi.json
	$(BIN)/python -m tests.support.generated 20000

test-clients: $(STAMP)  ## real clients against a real server, each in its own environment
	$(BIN)/python tests/clients/run.py $(CLIENTS)

test-triton: $(STAMP)  ## our GPU kernels in Triton's interpreter, and compiled; makes .triton (1 GB) on first use
	$(BIN)/python -m tests.support.triton_environment

test-vllm: $(STAMP)  ## the engine contract over a real vLLM on this CPU; makes .vllm (3 GB) on first use
	$(BIN)/python -m tests.support.vllm_environment

tools:  ## install what tests use beyond Python (Redis), on Debian and as root; else they are skipped
	@if ! command -v redis-server >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; \
	then apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
		apt-get install -qq --yes --no-install-recommends redis-server \
		|| echo 'Redis could not be installed: its tests are skipped'; fi

DEPLOY := .deploy
DEPLOY_STAMP := $(DEPLOY)/.installed

$(DEPLOY_STAMP): tests/deploy/requirements.txt
	$(PYTHON) -m venv $(DEPLOY)
	$(DEPLOY)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	# promtool alone, out of Debian's package; where there is none, its tests are skipped.
	cd $(DEPLOY) && if ! command -v promtool && apt-get download --quiet prometheus 2>/dev/null; then \
		dpkg-deb --extract prometheus_*.deb package && mv package/usr/bin/promtool bin/ && \
		rm -rf package prometheus_*.deb; fi
	touch $@

deploy-check: $(DEPLOY_STAMP)  ## render, lint and validate what deploy/ holds, offline
	$(DEPLOY)/bin/python -m pytest -q -o python_files='check_*.py' tests/deploy

manifests: $(STAMP) $(DEPLOY_STAMP)  ## write what is derived: the chart's schema of settings, the kustomize base
	$(BIN)/python -m tests.support.chart_schema
	$(DEPLOY)/bin/python -m tests.deploy.manifests

proto:  ## compile engines/wire/pb again, with the oldest compiler whose code every protobuf >= 5.29 runs
	python3 -m venv .protoc && .protoc/bin/pip install --quiet grpcio-tools==1.71.2
	.protoc/bin/python -m grpc_tools.protoc -Iengines/wire/pb --python_out=engines/wire/pb \
		--pyi_out=engines/wire/pb engines/wire/pb/penstock_engine.proto
	rm -rf .protoc

conformance: $(STAMP)  ## run the engine contract over every engine, and write docs/engines/conformance.md
	$(BIN)/python -m tests.support.conformance_table

bench: $(STAMP)  ## print the figures of docs/performance.md
	$(BIN)/python -m benchmarks

serve: $(STAMP)  ## serve the bundled model on http://127.0.0.1:8000
	$(BIN)/penstock serve

lock:  ## write requirements.lock from pyproject.toml
	$(BIN)/pip-compile --quiet --extra dev --extra openvino --strip-extras --allow-unsafe \
		--no-emit-index-url --no-emit-find-links --no-header --no-annotate \
		--output-file requirements.lock pyproject.toml
	# Which build of torch is the installing machine's choice; openvino is installed without telemetry.
	sed -i -e 's/+cpu$$//' -e '/^openvino-telemetry==/d; /^penstock /d' requirements.lock

clean:  ## remove what setup and tools made
	rm -rf $(VENV) .clients .triton .vllm build dist *.egg-info .mypy_cache .ruff_cache .hypothesis .import_linter_cache

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 20
