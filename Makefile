# install, demo, test, lint: each makes what it needs of .venv first.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export PYTHONUNBUFFERED := 1

DEMO_RUN := runs/demo
DEMO_BUNDLE := build/demo
# A network of real size, untrained: what slices buy.
LARGE_RUN := runs/demo_224
LARGE_BUNDLE := build/demo_224
BUNDLE := $(DEMO_BUNDLE)
# One for each core, of 2 GB each at most, 2 to 4 of them.
TEST_PROCESSES := $(shell cores=$$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN); \
	echo $$((cores < 2 ? 2 : cores > 4 ? 4 : cores)))

.PHONY: help install demo emulated-boards emulated-cluster test test-slow lint format clean

help:
	@echo "make install    .venv with all that the programs need (2 GB)"
	@echo "make demo       train on handwritten digits, convert, verify, serve every switch; what slices buy; tables and pictures (10 to 15 minutes)"
	@echo "make emulated-boards  self-test of BUNDLE=$(DEMO_BUNDLE) on emulated ARM boards (downloads 200 MB; x86_64 Linux with apt)"
	@echo "make emulated-cluster  workers of BUNDLE on three of them, of which one is killed, and every answer judged"
	@echo "make test       the tests (a quarter of an hour)"
	@echo "make test-slow  the tests that take minutes each"
	@echo "make lint       ruff, mypy and the rules of imports (import-linter)"
	@echo "make format     let ruff format the code"
	@echo "make clean      remove .venv and caches; runs and build stay"

install: $(VENV)/.host

demo: $(VENV)/.host
	$(BIN)/python -m paradis_tf.profile --config=paradis_tf/configs/digits_mobilenet_v1.py
	# On images of 16x16 the fixed cost of a oneDNN operation outweighs what it saves.
	TF_ENABLE_ONEDNN_OPTS=0 $(BIN)/python -m paradis_tf.train --config=paradis_tf/configs/digits_mobilenet_v1.py --workdir=$(DEMO_RUN)
	$(BIN)/python -m paradis_tf.evaluate --workdir=$(DEMO_RUN)
	$(BIN)/python -m export.convert --workdir=$(DEMO_RUN) --bundle=$(DEMO_BUNDLE) --precision=int8 --quantization=ptq
	$(BIN)/python -m export.verify --workdir=$(DEMO_RUN) --bundle=$(DEMO_BUNDLE)
	test -f $(LARGE_RUN)/model.keras || { rm -rf $(LARGE_RUN) && \
	  $(BIN)/python -m benchmarks.untrained --config=paradis_tf/configs/cifar10_resnet.py --config.model.depth=50 \
	  --config.model.form=224 --config.model.width_multiplier=1.0 --images=8 --workdir=$(LARGE_RUN); }
	$(BIN)/python -m export.convert --workdir=$(LARGE_RUN) --bundle=$(LARGE_BUNDLE) --name=ResNet-50 --precision=int8 \
	  --quantization=ptq --calibration_images=2
	$(BIN)/python -m export.demo --workdir=$(DEMO_RUN) --bundle=$(DEMO_BUNDLE) --large_bundle=$(LARGE_BUNDLE) --runtime=tflite_runtime

emulated-boards: $(VENV)/.host
	$(BIN)/python -m export.emulation.run --bundle=$(BUNDLE) -- fusion.selftest --bundle=. --runs=0

emulated-cluster: $(VENV)/.host
	$(BIN)/python -m export.emulated_cluster --bundle=$(BUNDLE)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow" -n $(TEST_PROCESSES) --dist=loadfile

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "error: $(PYTHON) is not Python 3.11, the one version that TensorFlow, Keras and tflite-runtime all run on;" \
	       "install it, or name it as in: make demo PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.host: requirements.txt | $(BIN)/pip
	@echo "installing requirements.txt into $(VENV) (about 2 GB, some minutes) ..."
	$(BIN)/pip install --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements.txt | $(BIN)/pip
	@echo "installing requirements-dev.txt into $(VENV) (about 2 GB, some minutes) ..."
	$(BIN)/pip install --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/.host
