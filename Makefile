PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TORCH := torch==2.13.0
CPU_WHEELS := https://download.pytorch.org/whl/cpu
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check

.PHONY: setup demo test test-gpu test-browser check bench clean
.DELETE_ON_ERROR:

setup: $(STAMP)

# On Linux the package index serves the CUDA build of torch, gigabytes of it. A machine without an NVIDIA driver takes the
# CPU build from PyTorch's own index instead, if that index answers.
$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@index=; \
	if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null && [ ! -e /proc/driver/nvidia ] && $(BIN)/python -c \
	  'import urllib.request; urllib.request.urlopen("$(CPU_WHEELS)/torch/", timeout=5)' 2>/dev/null; \
	then index="--extra-index-url $(CPU_WHEELS)"; fi; \
	echo "installing $(TORCH) $$index"; \
	$(PIP) install $(TORCH) $$index
	@echo "installing sana-streaming and its tools"
	@$(PIP) install --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python examples/demo.py

test: setup
	$(BIN)/python -m pytest --quiet

test-gpu: setup
	$(BIN)/python -m pytest --quiet -m gpu $$(grep -rl --include='*.py' 'mark\.gpu' tests)

test-browser: setup
	@$(PIP) install --editable '.[browser]'
	$(BIN)/python -m pytest --quiet -rs -m browser tests/browser --artefacts runs/browser

check: setup
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy

bench: setup
	$(BIN)/python -m sana_streaming bench --model nano --device cpu --size 256x256 --steps 4 --json runs/bench.json

clean:
	rm -rf $(VENV) build dist demo *.egg-info .pytest_cache .ruff_cache .mypy_cache
