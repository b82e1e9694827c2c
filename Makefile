# Neuraxis from a terminal (Linux, macOS). The first call makes a virtual environment in .venv; later calls reuse it.
#
#   make demo         segment the bundled real head CT, print the headline numbers and where to look
#   make train-demo   simulate heads, train three networks for minutes, compare them with the classical methods
#   make test         run all tests
#   make nightly      what takes hours besides: large archives, 10,000 damaged files of every syntax, hundreds of kills
#   make lint         check style
#   make benchmark    time and memory beside named peers, in the same run: Docs/benchmarks.md
#   make lock         pin the run-time packages by version and hash in requirements.lock.txt
#   make sbom         list them in neuraxis.cdx.json (CycloneDX), for a release
#   make audit        ask the database of known weaknesses about them (needs a network; else it fails)
#   make audit-offline  the same with the last advisories that a package brings along, of July 2021
#   make screenshots  remake the pictures of the README
#   make clean        remove the environment and what the commands above wrote
#
# PYTHON=python3.12     another Python (3.10 or newer) for the environment
# PIP_ARGS="..."        more arguments for pip, such as the index of a CPU-only torch
# TEST_ARGS="-k brain"  arguments for pytest
# BENCHMARK_ARGS="--keep"  arguments for the benchmark, such as --quick or --only ROW

PYTHON ?= python3
VENV ?= .venv
PIP_ARGS ?=
TEST_ARGS ?=
BENCHMARK_ARGS ?=

BIN := $(VENV)/bin
DEMO_SCAN := HemorrhageSeg/HemorrhageSegLib/Resources/SampleData/head_ct_hemorrhage.nrrd
DEMO_OUTPUT ?= demo-output
TRAIN_DEMO_OUTPUT ?= train-demo-output

.DEFAULT_GOAL := help
.PHONY: help demo train-demo test nightly lint benchmark lock sbom audit audit-offline screenshots clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.ready
	$(BIN)/neuraxis hemorrhage $(DEMO_SCAN) $(DEMO_OUTPUT)

train-demo: $(VENV)/.ready-test
	$(BIN)/python Training/demo.py $(TRAIN_DEMO_OUTPUT)

test: $(VENV)/.ready-test $(VENV)/view/.ready
	$(BIN)/python -m pytest $(TEST_ARGS)

nightly: $(VENV)/.ready-test
	$(BIN)/python -m pytest -m nightly
	$(BIN)/python Testing/faults/fuzz.py --count 10000
	$(BIN)/python Testing/faults/kills.py batch --count 200
	$(BIN)/python Testing/faults/kills.py training --count 200

lint: $(VENV)/.ready-test
	$(BIN)/ruff check .

benchmark: $(VENV)/.ready-test $(VENV)/nnunet/.ready
	PYTHONPATH=$(VENV)/nnunet $(BIN)/python Testing/benchmarks/table.py $(BENCHMARK_ARGS)

LOCK := requirements.lock.txt

lock: $(VENV)/.ready-release
	$(BIN)/pip-compile -q --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
	  --no-annotate --no-header --strip-extras --allow-unsafe --pip-args "$(PIP_ARGS)" -c constraints.txt -o $(LOCK) pyproject.toml

sbom: $(VENV)/.ready-release
	$(BIN)/cyclonedx-py requirements $(LOCK) --short-PURLs --pyproject pyproject.toml --output-reproducible -o neuraxis.cdx.json

# Strict: a package that the database does not answer for is a failure, not a pass.
audit: $(VENV)/.ready-release
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r $(LOCK)

audit-offline: $(VENV)/.ready-release
	$(BIN)/python Testing/offline_audit.py $(LOCK)

screenshots: $(VENV)/.ready-test
	$(BIN)/python Testing/screenshots.py

clean:
	rm -rf $(VENV) $(DEMO_OUTPUT) $(TRAIN_DEMO_OUTPUT) neuraxis.cdx.json

# A stamp stands for a finished installation; it is made again when a file that decides the packages changes.
$(VENV)/.ready: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

$(VENV)/.ready-test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[train,baselines,test,dev]"
	@touch $(VENV)/.ready $@

# The page of "neuraxis view" wants an older slicer-core than the panels' tests: an environment of its own, which takes
# everything else from the first. Its libraries look for those of vtk beside them. Without it the page's tests skip.
$(VENV)/view/.ready: constraints-view.txt | $(VENV)/.ready-test
	-$(BIN)/python -m venv $(@D) && \
	  $(@D)/bin/python Testing/lay_over.py $(BIN)/python && \
	  $(@D)/bin/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -c $< --ignore-installed --no-deps vtk && \
	  $(@D)/bin/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -c $< aiohttp "trame-slicer[standalone]" && \
	  touch $@

# The peer nnU-Net without what it would replace: it asks for torchvision, which brings another torch. Packages that its
# prediction loads lie in a folder of their own; without them the benchmark's row says so.
NNUNET := nnunetv2 dynamic-network-architectures batchgenerators batchgeneratorsv2 acvl-utils connected-components-3d \
  blosc2 numexpr ndindex httpx pandas tqdm threadpoolctl

$(VENV)/nnunet/.ready: | $(VENV)/.ready-test
	-$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) --no-deps --target $(@D) $(NNUNET) && touch $@

$(VENV)/.ready-release: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[release]"
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Neuraxis needs Python 3.10 or newer; name one: make demo PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Could not make $(VENV); on Debian and Ubuntu install python3-venv." >&2; exit 1; }
