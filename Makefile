# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := results/restormer_tiny.distillc

.PHONY: demo test test-lowest audit lint results zoo setup

demo: setup
	$(BIN)/distillc convert examples/checkpoints/restormer_tiny_denoise_sigma25.pth \
		--target snapdragon8elite --task denoise:sigma=25 --budget quick \
		--work-dir results/work --out $(DEMO) --overwrite

test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# The suite with the lowest versions that pyproject.toml allows: 7 GB, not part of CI.
LOWEST := build/lowest
test-lowest: setup
	mkdir -p build
	$(BIN)/python -m tests.lowest > $(LOWEST).txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/pip install --quiet --constraint $(LOWEST).txt --editable '.[test]'
	$(LOWEST)/bin/python -m pytest --numprocesses 2 --dist loadfile

# Known vulnerabilities of the pinned versions, asked from a service: not part of CI. It fails where
# the service does not know a package.
audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet pip-audit
	build/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	# mypy follows the folder mapping in an installed copy only.
	$(BIN)/pip install --quiet --no-deps --upgrade --target build/types .
	cd build/types && $(abspath $(BIN))/mypy --config-file $(abspath pyproject.toml)

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	# Tests compare our scan with its reference; neither CUDA nor what else it requires is needed.
	MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE $(BIN)/pip install --quiet --no-deps \
		--no-build-isolation --constraint constraints.txt mamba-ssm
	$(BIN)/python -m distillc.runtime.setup_emulator
	touch $@

# The result tables and pictures of docs/results.md: hours, goes on where it was stopped.
DATA ?= ../shared/data
results: setup
	$(BIN)/python -m tests.benchmarks.hybrids --train $(DATA)/BSDS500 --out results
	$(BIN)/python -m tests.benchmarks.results --bundles results --test $(DATA)/CBSD68 \
		--train $(DATA)/BSDS500 --plots docs

# docs/networks.md: every stage of every network of zoo.json, three hours; goes on where it was stopped.
ZOO ?= ../shared/zoo.json
zoo: setup
	$(BIN)/python -m tests.benchmarks.zoo $(ZOO) --json results/zoo.json --docs docs/networks.md
