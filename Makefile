# Every target sets up what it needs: only Python 3.11+ and make are assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Of the 23,000 files installed, what is imported is compiled, once; pip would compile all of them.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test test-browser test-notebook test-cluster fuzz test-comfyui lint bench docs wheel clean

$(READY): pyproject.toml constraints.txt
	@echo "Installing into $(VENV): some minutes, 2.4 GB"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(READY)
	$(BIN)/deradiff demo

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

test-browser: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser

test-notebook: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m notebook tests/docs/test_notebook.py

test-cluster: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster tests/cluster

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz 30000

# COMFYUI_DIR is a checkout of ComfyUI, COMFYUI_PYTHON a Python with its requirements (docs/comfyui.md)
test-comfyui: $(READY)
	COMFYUI_DIR="$(COMFYUI_DIR)" COMFYUI_PYTHON="$(COMFYUI_PYTHON)" $(BIN)/python -m pytest -s \
		tests/integrations/real/real_*.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python benchmarks/realign.py
	$(BIN)/python benchmarks/testbed.py
	$(BIN)/python benchmarks/sweep.py --quick

$(VENV)/.docs $(VENV)/.release: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(@F:.%=%)]'
	@touch $@

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going --quiet --builder html docs build/docs

wheel: $(VENV)/.release
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) build dist
