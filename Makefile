# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := results/restormer_tiny.distillc

.PHONY: help demo test test-lowest audit lint docs results zoo setup

help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: setup  ## convert the checkpoint of examples/ for snapdragon8elite
	$(BIN)/distillc convert examples/checkpoints/restormer_tiny_denoise_sigma25.pth \
		--target snapdragon8elite --task denoise:sigma=25 --budget quick \
		--work-dir results/work --out $(DEMO) --overwrite

test: setup  ## the whole test suite
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# 7 GB, not part of CI.
LOWEST := build/lowest
test-lowest: setup  ## the suite with the lowest versions that pyproject.toml allows
	mkdir -p build
	$(BIN)/python -m tests.lowest > $(LOWEST).txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --constraint $(LOWEST).txt --editable '.[test]'
	$(LOWEST)/bin/python -m pytest --numprocesses 2 --dist loadfile

# It asks a service, so it is not part of CI. It fails where the service does not know a package.
audit:  ## known vulnerabilities of the pinned versions
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet pip-audit
	build/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

# mypy and mkdocstrings follow the folder mapping of passes/ and targets/ only in an installed copy.
INSTALL_COPY = rm -rf build/types build/lib && mkdir -p build && \
	$(BIN)/pip install --quiet --no-deps --target build/types .

lint: setup  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	find distillc tests -name '*.[ch]' -exec $(BIN)/clang-format --dry-run --Werror {} +
	$(INSTALL_COPY)
	cd build/types && $(abspath $(BIN))/mypy --config-file $(abspath pyproject.toml)

# Links, anchors and names of the reference are checked. Nothing is fetched.
docs: $(VENV)/.docs  ## the documentation as a site, in build/site
	$(INSTALL_COPY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

$(VENV)/.docs: $(VENV)/.ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

setup: $(VENV)/.ready  ## the virtual environment, the packages, the emulator

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	# Tests compare our scan with its reference; neither CUDA nor what else it requires is needed.
	MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE $(BIN)/pip install --quiet --no-deps \
		--no-build-isolation --constraint constraints.txt mamba-ssm
	$(BIN)/python -m distillc.runtime.setup_emulator
	touch $@

# Hours; an interrupted run resumes.
DATA ?= ../shared/data
results: setup  ## the tables and pictures of docs/measurements/results.md
	$(BIN)/python -m tests.benchmarks.hybrids --train $(DATA)/BSDS500 --out results
	$(BIN)/python -m tests.benchmarks.results --bundles results --test $(DATA)/CBSD68 \
		--train $(DATA)/BSDS500 --plots docs/measurements

# Every stage of every network of zoo.json, three hours; an interrupted run resumes.
ZOO ?= ../shared/zoo.json
zoo: setup  ## the tables of docs/measurements/networks.md and kinds.md
	$(BIN)/python -m tests.benchmarks.zoo $(ZOO) --json results/zoo.json --docs docs/measurements/networks.md
	$(BIN)/python -m tests.benchmarks.kinds --json results/kinds.json --docs docs/measurements/kinds.md
