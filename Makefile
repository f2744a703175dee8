# `make demo` and `make test` need Python (3.11 or newer, with venv), make and a package index, and nothing before them.

PYTHON ?= python3
DURATION ?= 30s
UV ?= uv
GO ?= go
# Tests of one file stay in one process: what a module starts, it starts once. WORKERS=0 runs them all in pytest's own.
WORKERS ?= auto

VENV := .venv
BIN := $(VENV)/bin
# Every version and its hashes are pinned; the project itself is installed from here, with nothing downloaded for it.
PIP := $(BIN)/python -m pip --disable-pip-version-check
OTELCOL := .cache/otelcol/otelcol
PARALLEL := -n $(WORKERS) --maxprocesses 4 --dist loadfile

.PHONY: help demo test lint format cover soak bench bench-kubelet otelcol scale cluster cluster-v2 cluster-up cluster-down kubectl prometheus helm chart image image-test build constraints clean

help:
	@echo 'make demo       the whole pipeline on this machine, for $(DURATION) (DURATION=1m for longer)'
	@echo 'make test       the tests (FLAGS=... is passed to pytest; WORKERS=0 runs them in one process); what cannot run here is skipped with its reason'
	@echo 'make cover      the tests, with the branch coverage of the package'
	@echo 'make soak       faults, churn and restarts at random against a real collector, for 10m (DURATION=1m for less)'
	@echo 'make lint       ruff, mypy and the import contract'
	@echo 'make format     ruff, mending what it can'
	@echo 'make bench      what the exporter costs, beside the least that the kernel allows (FLAGS=--help)'
	@echo 'make bench-kubelet  the exporter beside the kubelet it could replace the scraping of, in a real node (root, Go)'
	@echo 'make scale      the load of a large cluster on its API servers and collectors, simulated (FLAGS=--help)'
	@echo 'make otelcol    builds the OpenTelemetry Collector for the tests that need it (needs Go, about two minutes)'
	@echo 'make cluster    the tests that need a Kubernetes node, in a real one of their own (root, Go; FLAGS=...)'
	@echo 'make cluster-v2      some of them on cgroup v2, in a User-Mode-Linux kernel (six minutes)'
	@echo 'make cluster-up      starts that node, and leaves it up; make cluster-down ends it'
	@echo 'make kubectl ARGS="get pods -A"   kubectl in it'
	@echo 'make image      the container image, with the engine that is there or without one (FLAGS=--help)'
	@echo 'make image-test   builds the Dockerfile by a real engine, of a base image without a registry (root, buildah, debootstrap)'
	@echo 'make build      the wheel and the source distribution, into dist/'
	@echo 'make prometheus   builds Prometheus for the tests that need it (needs Go, about two minutes, once)'
	@echo 'make helm       builds Helm for the tests of the chart (needs Go, about three minutes, once)'
	@echo 'make chart      writes deploy/otel-k8s-cgroup.yaml anew, and what the chart has of the program (needs Helm)'
	@echo 'make constraints  pins the newest versions (needs uv)'
	@echo 'make clean      removes what the above have made'

demo: $(VENV)/.demo-stamp
	@$(BIN)/otel-k8s-cgroup demo --duration $(DURATION)

test: $(VENV)/.dev-stamp
	@$(BIN)/python -m pytest $(PARALLEL) $(FLAGS)

cover: $(VENV)/.dev-stamp
	@$(BIN)/coverage erase
	@$(BIN)/python -m pytest --cov $(PARALLEL) $(FLAGS)

soak: DURATION = 10m
soak: $(VENV)/.dev-stamp $(OTELCOL)
	@$(BIN)/python -m tests.soak.soak --duration $(DURATION) $(FLAGS)

lint: $(VENV)/.dev-stamp
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.dev-stamp
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: $(VENV)/.demo-stamp
	@$(BIN)/python -m bench.bench $(FLAGS)

bench-kubelet: $(VENV)/.dev-stamp
	@$(BIN)/python -m tests.cluster with $(BIN)/python -m bench.kubelet $(FLAGS)

scale: $(VENV)/.demo-stamp
	@$(BIN)/python -m bench.scale $(FLAGS)

cluster: $(VENV)/.dev-stamp $(OTELCOL)
	@$(BIN)/python -m tests.cluster with $(BIN)/python -m pytest tests/cluster $(FLAGS)

cluster-v2: $(VENV)/.dev-stamp
	@$(BIN)/python -m tests.cluster v2

cluster-up: $(VENV)/.dev-stamp
	@$(BIN)/python -m tests.cluster up

cluster-down: $(VENV)/.dev-stamp
	@$(BIN)/python -m tests.cluster down

kubectl: $(VENV)/.dev-stamp
	@$(BIN)/python -m tests.cluster in kubectl $(ARGS)

otelcol: $(OTELCOL)

# The builder's version is that of the Collector's modules in the file.
$(OTELCOL): tests/collectors/otelcol-builder.yaml
	@mkdir -p $(@D)
	GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS=-mod=mod $(GO) run \
	    go.opentelemetry.io/collector/cmd/builder@$$(sed -n 's/.*otlpreceiver //p' $<) --config $<
	@touch $@

prometheus: | $(BIN)/python
	@$(BIN)/python -m tests.collectors.prometheus

helm: | $(BIN)/python
	@$(BIN)/python -m deploy.helm

chart: helm $(VENV)/.demo-stamp
	@$(BIN)/python -m deploy.render

image: | $(BIN)/python
	@$(BIN)/python -m deploy.image $(FLAGS)

image-test: $(VENV)/.dev-stamp
	@$(BIN)/python -m tests.deploy.base_image
	@IMAGE_TEST=1 $(BIN)/python -m pytest tests/deploy/test_engine_build.py $(FLAGS)

# Built with what constraints.txt pins, and nothing downloaded for it. The wheel is made of the source distribution.
build: $(VENV)/.demo-stamp
	@rm -rf build dist/otel_k8s_cgroup-*
	@$(BIN)/python -m hatchling build --directory dist --target sdist --target wheel

# --- the virtual environment ---------------------------------------------------------------------------------------

# Installs what the file pins. It takes up to half a minute: a terminal shows which package pip is at, in one line.
define install
total=$$(grep -c == $(1)); echo "installing $$total packages into $(VENV)"; \
{ $(PIP) install --require-hashes --no-deps -r $(1) || echo FAILED; } | { \
    count=0; \
    while read -r word package _; do \
        case $$word in \
            FAILED) exit 1 ;; \
            Collecting) count=$$((count + 1)); step="package $$count of $$total: $$package" ;; \
            Installing) step='unpacking them' ;; \
            *) continue ;; \
        esac; \
        [ ! -t 1 ] || printf '\r\033[K  %.70s' "$$step"; \
    done; \
    [ ! -t 1 ] || printf '\r\033[K'; }
endef

# Made once: `make clean` before the next `make` changes to another PYTHON.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo >&2 \
	    '$(PYTHON) is no Python 3.11 or newer: install one, and name it: make $(MAKECMDGOALS) PYTHON=python3.12'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo >&2 \
	    '$(PYTHON) has no venv module: install it (Debian and Ubuntu: apt-get install python3-venv), and try again'; exit 1; }
	@echo 'making $(VENV)'
	@$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.demo-stamp: constraints.txt pyproject.toml | $(BIN)/python
	@$(call install,constraints.txt)
	@$(PIP) --quiet install --no-deps --no-build-isolation --no-index --editable .
	@touch $@

$(VENV)/.dev-stamp: $(VENV)/.demo-stamp tests/constraints.txt tests/collectors/constraints.txt
	@$(call install,tests/constraints.txt)
	@$(PIP) --quiet install --require-hashes --no-deps --only-binary :all: -r tests/collectors/constraints.txt || \
	    echo 'rotel has no wheel for this machine: the tests that go through it will be skipped'
	@touch $@

# --- pins ----------------------------------------------------------------------------------------------------------

COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --upgrade \
    --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command 'make constraints'

constraints:
	$(COMPILE) pyproject.toml --extra demo --extra scrape --group build -o constraints.txt
	$(COMPILE) pyproject.toml --extra scrape -c constraints.txt -o deploy/constraints.txt
	$(COMPILE) --group dev -c constraints.txt -o tests/constraints.txt
	$(COMPILE) --group collectors -c constraints.txt -c tests/constraints.txt -o tests/collectors/constraints.txt

clean:
	rm -rf $(VENV) .cache build dist .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
