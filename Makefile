# The project's commands. `make` alone lists them. Each target sets up what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BENCH := .venv-bench
BENCH_READY := $(BENCH)/.ready
ROUNDS ?= 5
# The two halves of `make test`: between them every folder with tests (a test holds that).
HALF := tests/unit tests/simulation tests/chaos tests/integration/runtime tests/integration/wire tests/e2e
OTHER_HALF := tests/integration/chart tests/integration/cluster tests/integration/local_api tests/integration/local_cluster tests/integration/operator
# How often a test that failed is run again; those that were are listed. In CI once: real processes, deadlines, 2 cores.
RERUNS ?= 0
AGAIN = $(if $(filter-out 0,$(RERUNS)),--reruns $(RERUNS) -r aR)
ROWS ?=
WRAP ?=

.PHONY: help
help: ## List the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Made again when what the package needs has changed; otherwise it is there at once.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Say which: make PYTHON=python3.12 ..." >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "'$(PYTHON) -m venv' does not work here; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; }
	@echo "Installing agentswarm and what it needs into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	@$(BIN)/uv pip install --python $(BIN)/python --editable '.[dev]'
	@touch $@

.PHONY: setup
setup: $(READY) ## Make .venv with everything that development needs

.PHONY: demo
demo: $(READY) ## Start a local swarm, compute a portfolio's risk on it, kill an agent, write build/demo/report.html
	@$(BIN)/swarm demo

# Two halves at once, for most of the second waits for something; the first one's output comes afterwards. With arguments
# of your own (PYTEST_ARGS='tests/unit/wire -k credit') it is one run.
.PHONY: test
test: $(READY) ## Run the whole test suite
ifeq ($(strip $(PYTEST_ARGS)),)
	@mkdir -p build; trap 'kill $$units 2>/dev/null || true' EXIT INT TERM; \
	$(BIN)/pytest --color=no $(AGAIN) $(HALF) >build/test-units.log 2>&1 & units=$$!; \
	rest=0; $(BIN)/pytest $(AGAIN) $(OTHER_HALF) || rest=$$?; \
	first=0; wait $$units || first=$$?; trap - EXIT INT TERM; \
	echo; echo "== $(HALF)"; cat build/test-units.log; exit $$((first | rest))
else
	@$(BIN)/pytest $(PYTEST_ARGS)
endif

.PHONY: test-unit
test-unit: $(READY) ## Run the tests that start no cluster
	@$(BIN)/pytest tests/unit $(PYTEST_ARGS)

.PHONY: test-integration
test-integration: $(READY) ## Run the operator's and cluster's tests; on a real cluster with SWARM_TEST_KUBECONFIG=path
	@$(BIN)/pytest tests/integration/cluster tests/integration/operator $(PYTEST_ARGS)

OPERATOR_IMAGE ?=
AGENT_IMAGE ?=
NEXT_AGENT_IMAGE ?=
PULL_POLICY ?=
.PHONY: e2e
e2e: $(READY) ## Install on the current kubeconfig's cluster, use, break, upgrade, remove; OPERATOR_IMAGE=, AGENT_IMAGE=, PULL_POLICY=
	@SWARM_E2E=1 OPERATOR_IMAGE='$(OPERATOR_IMAGE)' AGENT_IMAGE='$(AGENT_IMAGE)' NEXT_AGENT_IMAGE='$(NEXT_AGENT_IMAGE)' \
	  PULL_POLICY='$(PULL_POLICY)' $(BIN)/pytest tests/e2e/cluster -x -rs -v $(PYTEST_ARGS)

# The peers have an environment of their own: what they pin must not decide what we develop with. One that has no wheel
# for this machine is left out, and its rows say so.
$(BENCH_READY): pyproject.toml tests/benchmarks/environment.py $(READY)
	@echo "Installing agentswarm and the peers it is measured against into $(BENCH)"
	@$(BIN)/python tests/benchmarks/environment.py $(BENCH)
	@touch $@

.PHONY: bench-transport
bench-transport: $(BENCH_READY) ## Measure the data plane against its peers; ROWS=name,name and ROUNDS=5 for less
	@$(BENCH)/bin/python tests/benchmarks/transport/bench.py --rounds $(ROUNDS) --rows '$(ROWS)' --wrap '$(WRAP)'

.PHONY: bench-compute
bench-compute: $(BENCH_READY) ## Measure kernels and agents against C, NumPy, BLAS, Ray and joblib; ROWS=, ROUNDS=5; needs gcc
	@$(BENCH)/bin/python tests/benchmarks/compute/bench.py --rounds $(ROUNDS) --rows '$(ROWS)' --wrap '$(WRAP)'

MINUTES ?= 10
.PHONY: bench-failover
bench-failover: $(BENCH_READY) ## Measure deaths, hangs and takeovers against their goals; ROWS=, ROUNDS=, MINUTES=10 of overload
	@$(BENCH)/bin/python tests/benchmarks/failover/bench.py --rounds $(ROUNDS) --rows '$(ROWS)' --minutes $(MINUTES)

.PHONY: bench-resource
bench-resource: $(BENCH_READY) ## Measure what the resource agents sense, foresee and do against their goals; ROWS=, ROUNDS=, MINUTES=10
	@$(BENCH)/bin/python tests/benchmarks/resource/bench.py --rounds $(ROUNDS) --rows '$(ROWS)' --minutes $(MINUTES)

.PHONY: bench-operator
bench-operator: $(READY) ## Measure the operator against its goals; ROWS=, ROUNDS=; SWARM_TEST_KUBECONFIG=path
	@$(BIN)/python tests/benchmarks/operator/bench.py --rounds $(ROUNDS) --rows '$(ROWS)'

SECONDS ?= 1800
ONLY ?=
.PHONY: chaos
chaos: $(READY) ## Do faults to a local swarm while clients check every answer; SECONDS=1800, SEED=n, ONLY=kill,partition
	@$(BIN)/swarm chaos --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY))

.PHONY: prove
prove: $(READY) ## Run the long proofs: 10 000 kills of the data plane's members, and interleavings one preemption deeper
	@SWARM_KILLS=10000 SWARM_RING_KILLS=10000 SWARM_HUB_KILLS=300 SWARM_STEPS=1 $(BIN)/pytest -m '' --timeout 3600 \
	  tests/chaos/shm tests/unit/shm/test_shm_arena_steps.py tests/unit/shm/test_shm_protocol_steps.py \
	  tests/unit/shm/test_shm_ring_steps.py tests/integration/wire/test_killed_hub.py $(PYTEST_ARGS)

SEEDS ?= 1000
.PHONY: sim
sim: $(READY) ## Simulate SEEDS=1000 swarms with faults and check what was promised; SEED=n shows one again
	@PYTHONPATH=tests $(BIN)/python -m simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(if $(MUTANT),--mutant $(MUTANT))

.PHONY: sim-mutants
sim-mutants: $(READY) ## Plant faults and say how many seeds it takes the simulator to find each; SEEDS=n at most
	@PYTHONPATH=tests $(BIN)/python -m simulation --mutants --seeds $(SEEDS)

.PHONY: sim-scale
sim-scale: $(READY) ## Simulate swarms of 10 to 1000 nodes; figures and plots go to docs/scale; CASES=100:10,... for less
	@PYTHONPATH=tests $(BIN)/python -m simulation.scale $(if $(CASES),--cases $(CASES))

IMAGES ?= operator agent
.PHONY: image
image: ## Build the images; BASE=, TAG=, PREFIX=, IMAGES="operator agent agent-gpu", ENGINE=docker|podman|buildah
	@TARGETS='$(IMAGES)' BASE='$(BASE)' TAG='$(TAG)' PREFIX='$(PREFIX)' ENGINE='$(ENGINE)' deploy/image/build

.PHONY: image-base
image-base: ## Make a base image from Debian's packages, for places without a registry; BASE=localhost/agentswarm-base:1
	@deploy/image/base '$(or $(BASE),localhost/agentswarm-base:1)'

.PHONY: image-check
image-check: ## Build a base from Debian's packages and the images on it, and run them as a cluster would; needs root
	@.ci/images

.PHONY: pictures
pictures: $(READY) ## Draw the dashboards' panels from a swarm at work into docs/images; needs prometheus; MINUTES=6
	@PYTHONPATH=tests $(BIN)/python -m support.pictures --out docs/images $(if $(filter command line,$(origin MINUTES)),--minutes $(MINUTES))

.PHONY: lint
lint: $(READY) ## Check style, types and the layers' import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

.PHONY: format
format: $(READY) ## Format the code, and mend what the linter can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: generate
generate: $(READY) ## Write what is generated: the CRD, the references, the chart's README, the dashboards
	@$(BIN)/python -m swarm_operator.api.crd
	@$(BIN)/python -m swarm_operator.rbac
	@$(BIN)/python -m swarm_deploy.reference
	@$(BIN)/python -m swarm_deploy.chart
	@$(BIN)/python -m swarm_deploy.dashboards.grafana

# Compared with what was there before, so that it also works in a tree with changes not committed yet.
.PHONY: verify
verify: ## Generate again, and fail if the tree changed
	@before=$$(git ls-files -z --cached --others --exclude-standard | xargs -0 sha256sum); \
	$(MAKE) generate; \
	after=$$(git ls-files -z --cached --others --exclude-standard | xargs -0 sha256sum); \
	if [[ "$$before" != "$$after" ]]; then \
	  echo "What is generated was out of date; look at it and commit it:" >&2; \
	  diff <(echo "$$before") <(echo "$$after") | awk '/^>/ {print "  " $$3}' >&2; exit 1; \
	fi; echo "What is generated is up to date."

.PHONY: clean
clean: ## Remove .venv, build/ and the caches of tools
	@rm -rf $(VENV) $(BENCH) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
