# Headrace. `make help` lists what there is.
PYTHON ?= python3.11
ARGS ?=
BIN = .venv/bin

.PHONY: help demo test check lint story chaos chaos-smoke bench bench-releases setup lock

help:  ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo:  ## set up what is missing, then run the whole loop on real data until Ctrl-C (ARGS="--until promoted --json")
	@began=$$(date +%s); $(MAKE) -s --no-print-directory .python && $(PYTHON) infra/bootstrap.py app triton kafka data >&2 && \
	exec $(BIN)/headrace demo --setup-seconds $$(( $$(date +%s) - began )) $(ARGS)

test: setup  ## all tests, those on real Kafka and real Triton among them
	$(BIN)/python -m pytest -m "not story and not chaos and not containers and not browser" $(ARGS)

check: lint  ## format, lint, types, import rules, unit tests: no broker, two minutes
	$(BIN)/python -m pytest -q -m "not stack and not story and not chaos and not containers and not browser" $(ARGS)

lint: setup  ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

story: setup  ## the longer stories: no drift, and every process killed once
	$(BIN)/python -m pytest -m story $(ARGS)

chaos: setup  ## the fault campaign (three seeds, resumes; hours) and every failpoint (ARGS="--seed 1 --part 0" for one part)
	$(BIN)/python -m tests.chaos.campaign $(ARGS)
	$(BIN)/python -m pytest -m chaos

chaos-smoke: setup  ## a few of each fault, in less than three minutes (part of `make test`)
	$(BIN)/python -m tests.chaos.campaign --seed 1 --smoke --events 8000 $(ARGS)

bench: setup  ## the published figures (docs/)
	$(BIN)/python -m bench.fold $(ARGS)
	$(BIN)/python -m bench.quality.p1 $(ARGS)

bench-releases: setup  ## 1,000 pushes under load, and blocks with and without (an hour; resumes; ARGS="--pushes 100 --json")
	$(BIN)/python -m bench.releases $(ARGS)

setup: .python  ## set up everything for development: environments, Triton, Kafka, demo data (about 8 GB)
	@$(PYTHON) infra/bootstrap.py dev triton kafka data >&2

lock:  ## resolve the dependencies anew (locks/ hold versions and hashes, no addresses)
	sh infra/lock.sh

.PHONY: .python
.python:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 is missing: apt-get install -y python3.11 python3.11-venv" >&2; exit 1; }
