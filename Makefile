# `make` lists the targets. Each one sets up what it needs, once; a second run starts at once.
PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
RACERS := .venv-racers
ARGS ?=

export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Where there is no home, lend one: caches need a place.
ifeq ($(and $(HOME),$(wildcard $(HOME)/.)),)
export HOME := $(CURDIR)/$(VENV)/home
endif

.PHONY: help demo lecture test lint bench-diagnosis bench-overhead bench-curvature bench-surface bench-race bench-noise system-packages clean
help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 18

demo: $(VENV)/.demo  ## see a network that does not train diagnosed and cured
	$(VENV)/bin/unstuck run examples/digits_cnn.py

lecture: $(VENV)/.demo  ## the lecture's experiments, all on one page; ARGS="--lang zh"
	$(VENV)/bin/unstuck lecture all --out .unstuck/lecture $(ARGS)

test: $(VENV)/.dev system-packages lint  ## lint, types and all tests; ARGS="-k race" for some of them
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n 2 $(ARGS)

lint: $(VENV)/.dev  ## ruff and mypy
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy

bench-diagnosis: $(VENV)/.dev system-packages  ## how often the diagnosis is right; ARGS="--only dead-units"
	$(VENV)/bin/python benchmarks/diagnosis.py $(ARGS)

bench-overhead: $(VENV)/.demo  ## what watching costs; ARGS="--only mlp"
	$(VENV)/bin/python benchmarks/overhead.py $(ARGS)

bench-curvature: $(PEERS)/.done system-packages  ## eigenvalues against other libraries; ARGS="--only mlp"
	OMP_NUM_THREADS=1 $(PEERS)/bin/python benchmarks/curvature.py $(ARGS)

bench-surface: $(PEERS)/.done  ## a loss surface against another library; ARGS="--only cnn"
	OMP_NUM_THREADS=1 $(PEERS)/bin/python benchmarks/surface.py $(ARGS)

bench-race: $(RACERS)/.done system-packages  ## 64 settings against plain loops, Ray Tune, Optuna; ARGS="--only cnn"
	OMP_NUM_THREADS=1 $(RACERS)/bin/python benchmarks/race.py $(ARGS)

bench-noise: $(VENV)/.demo  ## does the interval around the critical batch size hold it? ARGS="--seeds 100"
	OMP_NUM_THREADS=1 $(VENV)/bin/python benchmarks/noise.py $(ARGS)

system-packages:
	@sh scripts/system-packages.sh

clean:  ## remove the environment, caches and recorded runs
	rm -rf $(VENV) $(PEERS) $(RACERS) .unstuck build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +

# Stamps: each stands for a step that went through to its end.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unstuck needs Python 3.11: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(VENV)/home
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing unstuck and torch into $(VENV): some minutes the first time."
	$(VENV)/bin/python -m pip install -q -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing unstuck, torch and the test tools into $(VENV): some minutes the first time."
	$(VENV)/bin/python -m pip install -q "pip>=25.1"
	$(VENV)/bin/python -m pip install -q -e . --group lint --group test --group integrations
	@touch $@ $(VENV)/.demo

$(PEERS)/.done: $(VENV)/.made pyproject.toml constraints.txt benchmarks/requirements-curvature.txt
	@echo "Installing unstuck, torch and the libraries to compare with into $(PEERS): some minutes the first time."
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install -q -e . -r benchmarks/requirements-curvature.txt
	@touch $@

$(RACERS)/.done: $(VENV)/.made pyproject.toml constraints.txt benchmarks/requirements-race.txt
	@echo "Installing unstuck, torch and the libraries to race against into $(RACERS): some minutes the first time."
	$(PYTHON) -m venv $(RACERS)
	$(RACERS)/bin/python -m pip install -q -e . -r benchmarks/requirements-race.txt
	@touch $@
