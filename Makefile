# Everything a contributor or a newcomer runs.  `make run REPO=path` and `make test` are the two that matter.
PYTHON ?= python3
# Which build this is depends on the package index; `make clean` before another one.
TORCH ?= torch==2.13.0
VENV ?= .venv
REPO ?= .
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := check
.PHONY: run setup setup-dev test test-isa sanitize faults fuzz check lint types layers format benchmarks peers corpus embedded-model quality clean

run: $(VENV)/.installed  ## index REPO, write its docs with the embedded model, say where they are
	$(BIN)/rotary-batch run $(REPO)

test: $(VENV)/.installed-dev  ## the test suite, without the slow suites; fails below the floor of coverage
	$(BIN)/pytest -n 2 -m "not faults" --cov

test-isa: $(VENV)/.installed-dev  ## the engine's tests as on processors with fewer instructions than this one
	for isa in portable avx2 avx512_bf16; do echo "== $$isa"; ROTARY_BATCH_MAX_ISA=$$isa $(BIN)/pytest -n 2 -m "not faults" -rs tests/engine || exit 1; done

sanitize: $(VENV)/.installed-dev  ## every kernel at every level under AddressSanitizer and UndefinedBehaviorSanitizer
	$(BIN)/python tests/engine/sanitize.py

faults: $(VENV)/.installed-dev  ## the slow suites: some 900 SIGKILLs, hostile repositories one by one, 100,000 files, a million items
	$(BIN)/pytest -m faults --timeout 7200

fuzz: $(VENV)/.installed-dev  ## 10,000 seeded mutations of each input format
	FUZZ_MUTATIONS=10000 $(BIN)/pytest -n 2 --timeout 7200 tests/test_fuzz.py

check: lint types layers sanitize test  ## what must be green before a commit; `.ci/run` runs this

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

layers: $(VENV)/.installed-dev
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmarks: $(VENV)/.installed-dev  ## two hours on an idle machine, root for the caps; writes into benchmarks/
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.deviation
	$(BIN)/python -m benchmarks.cache_sim
	$(BIN)/python -m benchmarks.contention
	$(BIN)/python -m benchmarks.stream

peers: $(VENV)/.installed-dev  ## beside llama.cpp (built here) and accelerate: five rounds of 20 minutes, 60 GB of disk, root for the caps
	$(BIN)/pip install --quiet --editable ".[dev,peers]"
	test -x .peers/bin/llama-batched-bench || sh benchmarks/peers/build_llama.sh $(CURDIR)/.peers
	LLAMA_CPP=$(CURDIR)/.peers/bin LD_LIBRARY_PATH=$(CURDIR)/.peers/bin $(BIN)/python -m benchmarks.peers.compare

corpus: $(VENV)/.installed-dev  ## what the embedded model reads, from the packages installed here; two minutes
	$(BIN)/python -m training.corpus

embedded-model: $(VENV)/.installed-dev  ## train the demonstration model (hours on a CPU; resumes) and pack it
	$(BIN)/python -m training.train --out training/out --steps 3600
	$(BIN)/python -m training.export --out training/out --pack rotary_batch/embedded

quality: $(VENV)/.installed-dev  ## judge the embedded model on packages it never saw (ten minutes); writes into benchmarks/
	$(BIN)/python -m training.quality

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

# torch first and by itself: as a dependency it would be the newest.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
