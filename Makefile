# `make` lists the targets. Each one sets up all it needs in .venv: Python 3.11 or newer and make are enough.
# Another Python: make setup PYTHON=/path/to/python3.12

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup test test-long fuzz check format demo paper bench bench-engine bench-scale bench-store bench-student chaos schema clean

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$p"; break; }; done)
DOCKERFILES := $(wildcard docker/*.Dockerfile)
SCRIPTS := $(wildcard docs/clusters/*.sbatch)

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## create .venv and install softcask with everything that development needs

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "softcask needs Python 3.11 or newer with venv; none was found. \
	Install one (Debian: apt install python3.11-venv) or name it: make setup PYTHON=/path/to/python"; exit 1; }
	@echo "setting up $(VENV): a few minutes the first time"
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

test: $(READY)  ## run all tests; ARGS="-k zarr" to choose
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-long: $(READY)  ## what `make test` leaves out for its length: every example and page of training, the paper's sections, a cancelled job
	$(BIN)/python -m pytest -m long $(ARGS)

fuzz: $(READY)  ## read 1,000 stores that are malformed on purpose; some ten minutes
	SOFTCASK_HOSTILE_EXAMPLES=1000 $(BIN)/python -m pytest tests/pipeline/store/test_hostile_at_random.py --timeout 3600 $(ARGS)

check: $(READY)  ## ruff, mypy --strict, import-linter, hadolint, shellcheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict -p softcask
	$(BIN)/lint-imports
	$(BIN)/hadolint $(DOCKERFILES)
	$(BIN)/shellcheck $(SCRIPTS)

format: $(READY)  ## sort imports, mend what ruff can mend, format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

demo: $(READY)  ## label MNIST once on local Ray, train three students from what was kept
	$(BIN)/python examples/mnist/demo.py

paper: $(READY)  ## the paper's findings on MNIST: what has no record yet, then docs/paper.md; hours of one core, resumable
	$(BIN)/python -m examples.paper $(ARGS)

bench: $(READY)  ## cost of the engine beside a bare torch loop
	$(BIN)/python benchmarks/engine_overhead.py

bench-engine: $(READY)  ## and beside a script, Ray Data, two actors; some forty minutes of an idle machine
	$(BIN)/python benchmarks/engine_overhead.py --beside --rounds 5 --out benchmarks/results/engine_overhead.md

bench-scale: $(READY)  ## a driver's cost a unit with a thousand simulated actors, to a million units; 6 GB of /dev/shm
	$(BIN)/python benchmarks/engine_scale.py

bench-store: $(READY)  ## reading beside other loaders, codecs beside others' at equal bytes; hours, see benchmarks/README.md
	$(BIN)/python benchmarks/store_reading.py --out benchmarks/results
	$(BIN)/python benchmarks/codec_fidelity.py --out benchmarks/results
	$(BIN)/python benchmarks/student_from_codec.py --windows 32 --out benchmarks/results

bench-student: $(READY)  ## steps fed from a store beside tensors in memory and live teachers; the loader beside others; a loss straight from columns
	$(BIN)/python benchmarks/student_feeding.py --out benchmarks/results
	$(BIN)/python benchmarks/compressed_loss.py --out benchmarks/results

chaos: $(READY)  ## kill, stop and starve every part of a run at seeded times; compare what it stored; half an hour
	$(BIN)/python benchmarks/chaos.py --out benchmarks/results/chaos.md $(ARGS)

schema: $(READY)  ## write the JSON Schema of the store's documents to docs/schema
	$(BIN)/python -m softcask.jobs.export_schema docs/schema

clean:  ## remove caches and build outputs; keeps .venv and the demo's results
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
