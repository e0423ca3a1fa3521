# Two commands do everything from a fresh clone: `make demo` and `make test`. Both need Python >= 3.11, git and make.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install

.PHONY: demo test test-fast test-oldest test-package test-monailabel test-browser lint bench bench-gpu clean

demo: $(VENV)/.runtime
	$(BIN)/python -m dino_uad demo --out demo

test: $(VENV)/.dev lint
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

# The oldest versions that pyproject.toml allows.
test-oldest: .venv-oldest/.ready
	.venv-oldest/bin/python -m pytest -n 2 --dist worksteal -m "not slow"

.venv-oldest/.ready: requirements-oldest.txt pyproject.toml
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip --disable-pip-version-check -q install -r requirements-oldest.txt
	touch $@

# The wheel in an environment that has nothing else: what `pip install` gives somebody.
test-package:
	rm -rf .venv-package dist/wheel && $(PYTHON) -m venv .venv-package
	.venv-package/bin/python -m pip --disable-pip-version-check -q install build
	.venv-package/bin/python -m build --outdir dist/wheel
	rm -rf .venv-package && $(PYTHON) -m venv .venv-package
	.venv-package/bin/python -m pip --disable-pip-version-check -q install dist/wheel/*.whl
	cd dist/wheel && ../../.venv-package/bin/dino-uad demo --quick
	cd dist/wheel && ../../.venv-package/bin/dino-uad init bundles && ls bundles/*/configs/train.json

lint: $(VENV)/.dev
	$(BIN)/ruff check common tests setup.py
	$(BIN)/ruff format --check common tests setup.py

# MONAI Label needs an environment of its own: it cannot share the pins of the development tools.
test-monailabel: .venv-monailabel/.ready
	.venv-monailabel/bin/python -m pytest tests/monailabel

.venv-monailabel/.ready: pyproject.toml tests/monailabel/requirements.txt tests/monailabel/no-deps.txt
	test -x .venv-monailabel/bin/python || $(PYTHON) -m venv .venv-monailabel
	.venv-monailabel/bin/python -m pip --disable-pip-version-check -q install -e . -r tests/monailabel/requirements.txt
	.venv-monailabel/bin/python -m pip --disable-pip-version-check -q install --no-deps -r tests/monailabel/no-deps.txt
	.venv-monailabel/bin/python tests/monailabel/patch_torchvision.py
	touch $@

# The reports in a browser: QtWebEngine (Chromium, 700 MB) comes from the package mirror. `make test` uses it once it is here.
test-browser: $(VENV)/.dev .venv-browser/.ready
	$(BIN)/python -m pytest tests/report tests/worklist -k browser -rs

.venv-browser/.ready: tests/requirements-browser.txt
	test -x .venv-browser/bin/python || $(PYTHON) -m venv .venv-browser
	.venv-browser/bin/python -m pip --disable-pip-version-check -q install -r $<
	touch $@

bench: $(VENV)/.bench
	$(BIN)/python -m dino_uad bench --out runs/bench

# On a machine with a GPU: the whole suite for five minutes, whose bundles run on the GPU there, then the benchmark
# with its aims for a GPU. A test that fails does not keep the benchmark from running.
bench-gpu: $(VENV)/.bench
	$(BIN)/python -c "import torch; assert torch.cuda.is_available(), 'torch finds no GPU here'"
	-timeout 300 $(BIN)/python -m pytest -q -n 8 --dist worksteal -m "not slow"
	$(BIN)/python -m dino_uad bench --device cuda --out runs/bench-gpu --rows throughput,em,score,ar,ar_training,forward,pixels,coreset,nearest,options,feeding,large_fit

$(VENV)/.runtime: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python >= 3.11 found; install one or set PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(PIP) -r requirements-dev.txt
	touch $@

$(VENV)/.bench: requirements-bench.txt $(VENV)/.dev
	$(PIP) -r requirements-bench.txt
	touch $@

clean:
	rm -rf $(VENV) demo dist runs
