# The commands of this repository. `make help` lists them.

VENV := .venv
PY := $(VENV)/bin/python
# Written once the service's packages are installed, and once those of development are installed beside them.
INSTALLED := $(VENV)/.installed
DEVELOPING := $(VENV)/.developing
# What an up-to-date environment was made from; it changes with the dependencies and with the Python below it.
KEY = $$(cat pyproject.toml constraints.txt | cksum) $$($(PY) -V 2>&1)
# pgserver publishes wheels for these two.
PYTHONS := python3.11 python3.12 python3 python
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
FREE_MB_NEEDED := 4000
# One section of the lock. pip installs only files whose hash is there, and asks no package what else it needs.
SECTION = sed -n '/^\# == $(1)$$/,/^\# == /p' constraints.txt
# torch is downloaded first: of two builds whose hash is locked, pip would take the index's own, which is ten times as large.
LOCKED_INSTALL = $(PY) -m pip install -qq --require-hashes --no-deps --only-binary :all: -r /dev/stdin
# The index's own torch on Linux needs the CUDA libraries; a CPU build does not.
HAS_CUDA := import importlib.metadata as m, sys; sys.exit(not any("nvidia" in r or "cuda" in r for r in m.requires("torch")))
# What `make fast` leaves out; pyproject.toml says what each mark means.
SLOW := processes or browser or faults or slow or long or soak
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest
# More than the two cores: many tests wait for processes, servers and deadlines. Those of `make fast` wait for nothing.
WORKERS := 4

export PYTHONUNBUFFERED := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo serve test setup service install development chromium promtool mlflow lint fast sqlite coverage postgresql long docs wheel format bench \
	growth bench-gpu gpu-check faults schemathesis power studies reproduction markets features fuzz pythons soak chaos compose-trial \
	screenshots lock image-digests clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: service ## the whole story on this machine, then serve it (PORT=8000, CANDLES=folder, DRIFT=1.2, EXIT=1)
	@$(PY) -m crpbot.demo $(if $(PORT),--port $(PORT)) $(if $(CANDLES),--candles "$(CANDLES)") \
		$(if $(DRIFT),--drift $(DRIFT)) $(if $(EXIT),--exit)

serve: service ## run the service on the state of an earlier demo, or on a new one, without the story (PORT=8000)
	@$(PY) -m crpbot.demo --serve $(if $(PORT),--port $(PORT))

test: lint sqlite postgresql ## what a change must pass, in about eleven minutes; CI adds `make long`

setup: service ## make or refresh .venv from the lock, with the tools of development; quick when nothing changed
	@[ "$$(cat $(DEVELOPING) 2>/dev/null)" = "$(KEY)" ] || $(MAKE) --no-print-directory development

service: # what the product imports, and nothing more
	@[ "$$(cat $(INSTALLED) 2>/dev/null)" = "$(KEY)" ] || $(MAKE) --no-print-directory install

install:
	@set -e; \
	if ! $(PY) -c '$(FITS)' 2>/dev/null; then \
		found=""; \
		for python in $(or $(PYTHON),$(PYTHONS)); do \
			if "$$python" -c '$(FITS)' 2>/dev/null; then found="$$python"; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "This needs Python 3.11 or 3.12, and found neither as: $(or $(PYTHON),$(PYTHONS))."; \
			echo "Install one, or say where it is: make setup PYTHON=/path/to/python3.11"; exit 1; \
		fi; \
		free=$$(df -Pm . | awk 'NR == 2 {print $$4}'); \
		if [ "$$free" -lt $(FREE_MB_NEEDED) ]; then \
			echo "Only $$free MB are free here, and the packages need $(FREE_MB_NEEDED): make room first."; exit 1; \
		fi; \
		echo "Making $(VENV) with $$("$$found" -V) ($$found)"; \
		"$$found" -m venv --clear $(VENV); \
	fi; \
	echo "Installing torch (1 of 2, a few minutes the first time)"; \
	$(PY) -m pip download -qq --no-deps --dest build/torch "$$($(call SECTION,torch) | sed -n 's/^\(torch==[^ ]*\).*/\1/p')"; \
	$(call SECTION,torch) | $(LOCKED_INSTALL) --no-index --find-links build/torch; \
	rm -rf build/torch; \
	if $(PY) -c '$(HAS_CUDA)'; then $(call SECTION,cuda) | $(LOCKED_INSTALL); fi; \
	echo "Installing the other packages of the service (2 of 2, some minutes more)"; \
	$(call SECTION,service) | $(LOCKED_INSTALL)
	@echo "$(KEY)" > $(INSTALLED)

development: # on top of the service's packages
	@echo "Installing the tools of development (tests, linters, documentation)"
	@{ $(call SECTION,sbom); $(call SECTION,development); } | $(LOCKED_INSTALL)
	@echo "$(KEY)" > $(DEVELOPING)

chromium: # for the browser tests, which skip with a note where there is none
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	[ -n "$$CRPBOT_CHROMIUM" ] || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Chromium for the browser tests"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium \
			>/dev/null; \
	else \
		echo "NOTE: no Chromium here: the browser tests will be skipped. Install it, or set CRPBOT_CHROMIUM."; \
	fi

promtool: # for the tests of the alerts, which skip with a note where it is missing
	@command -v promtool >/dev/null || \
	echo "NOTE: no promtool here: the alerts and the dashboard will NOT be checked. Install the package prometheus."

mlflow: setup # for the test of its import and export, which is skipped with a note where it is missing
	@$(PY) -m benchmarks.mlflow_registry || \
	echo "NOTE: MLflow's own environment could not be made here: NOTHING is shown about its import and export."

lint: setup ## style, types, the direction of imports, migrations (forgotten, or not fit for an upgrade), prose
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	CRPBOT_STATE_DIR=$$(mktemp -d) $(PY) manage.py makemigrations --check --dry-run
	$(PY) -m tests.migration_lint
	$(PY) -m tests.docs.prose

fast: setup ## the tests of a change in two minutes: no browser, no processes, no planted faults
	$(PYTEST) -n 2 -m "not ($(SLOW))" --ignore tests/e2e --ignore tests/faults --ignore tests/power

sqlite: setup chromium promtool mlflow ## the tests on SQLite, without the long ones
	$(PYTEST) -n $(WORKERS) -m "not (long or soak)"

coverage: setup chromium ## these and the long ones with coverage and its floor: build/coverage.txt lists the lines that no test runs
	@mkdir -p build
	OMP_NUM_THREADS=1 $(PY) -m slipcover --json --out build/coverage.json --fail-under 0 -m pytest -n $(WORKERS) -m "not soak" $(TESTS); \
		tests=$$?; $(PY) -m slipcover --out build/merged.json --merge build/coverage.json > build/coverage.txt; floor=$$?; \
		tail -1 build/coverage.txt; [ $$floor = 0 ] || echo "Coverage is under fail-under in pyproject.toml."; \
		exit $$((tests + floor))

postgresql: setup ## the tests of the database again, on PostgreSQL, without the long ones
	CRPBOT_TEST_DATABASE=postgresql $(PYTEST) -n $(WORKERS) -m "postgresql and not (long or soak)"

long: setup chromium promtool mlflow ## the long tests, on SQLite and on PostgreSQL: whole stories, every planted fault, fuzzing
	$(PYTEST) -n $(WORKERS) -m "long and not soak"
	CRPBOT_TEST_DATABASE=postgresql $(PYTEST) -n $(WORKERS) -m "postgresql and long and not soak"

docs: setup ## the documentation as a site, in build/site; a warning or a broken link fails
	$(VENV)/bin/mkdocs build --strict

wheel: service ## what a bot installs, crpbot-runtime, in dist
	@$(PY) -m distribution.wheel dist

format: setup ## mend the style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: setup ## measure against the peers, interleaved; figures go to docs/
	$(PY) -m benchmarks

growth: setup ## the same things on a history of 1,000 and of 10,000 releases, on PostgreSQL; the table goes to docs/scale.md
	$(PY) -m benchmarks.growth $(ARGS)

bench-gpu: setup ## training on a GPU against the reference loop on that same GPU; status 3 where there is none
	$(PY) -m benchmarks.gpu

gpu-check: setup ## driver, device, torch, and three coins on the GPU against the CPU's figures; status 3 where there is none
	$(PY) -m benchmarks.gpu --check

faults: setup ## plant every fault and see which gate catches it, then judge healthy bundles; the table goes to docs/
	OMP_NUM_THREADS=1 $(PY) -m tests.faults

schemathesis: setup ## ask every operation of the running API what its schema allows and what not (ARGS="--seed 7")
	OMP_NUM_THREADS=1 $(PY) -m tests.api.conformance $(ARGS)

reproduction: setup ## where a second training gives the same bytes, on this processor and as on others; the table goes to docs/
	$(PY) -m benchmarks.reproduction

power: setup chromium ## how often V7 is released at every drift, under both policies (an hour; it goes on where it stopped)
	$(PY) -m benchmarks.power

studies: setup ## studies against as many random trials, and at drift 0; docs/studies.md (it goes on where it stopped)
	$(PY) -m benchmarks.studies

markets: setup ## error rates of the candle checks over real and made-up series; docs/markets.md (CRPBOT_CANDLES_DIR)
	OMP_NUM_THREADS=1 $(PY) -m benchmarks.markets

features: setup ## the 72 features and the label with their formulas; docs/features.md
	@$(PY) -m mlcore.features.reference docs/features.md

fuzz: setup ## every reader of files and answers from outside, for a time (MINUTES=60, SEED=1); the table goes to docs/
	@$(PY) -m tests.fuzz --minutes $(or $(MINUTES),60) --seed $(or $(SEED),1)

pythons: setup ## the client's wheel alone, in a new environment of each Python that it supports (3.11 to 3.13)
	$(PYTEST) -m soak -p no:randomly tests/runtime/test_pythons.py

soak: setup ## the long runs: killed workers, twenty times over, 200 random lives of GPU machines, a recurrent network
	$(PYTEST) -m soak -p no:randomly tests/e2e/test_killed_workers.py tests/machines/test_simulation.py tests/gates/test_notebooks.py

chaos: setup ## 200 moves of the pointer while processes and systems fail, then the invariant at length; the table goes to docs/
	CRPBOT_TEST_DATABASE=postgresql $(PYTEST) -m soak -p no:randomly tests/e2e/test_chaos.py
	$(PYTEST) -m soak -p no:randomly tests/deploy/test_invariant.py

compose-trial: setup ## build the image and run docker-compose.yml in a private container engine, as root on Debian (ARGS=--keep)
	$(PY) -m tests.compose $(ARGS)

screenshots: setup chromium ## every page as a picture, light and dark, in var/screenshots
	$(PY) -m tests.e2e.screenshots

lock: setup ## resolve pyproject.toml into constraints.txt, with hashes (KEEP=1: versions that are locked stay)
	[ -x build/lock/bin/uv ] || { rm -rf build/lock && $(PY) -m venv build/lock && build/lock/bin/python -m pip install -qq uv; }
	$(PY) -m distribution.lock build/lock/bin/uv $(if $(KEEP),--keep)

image-digests: ## pin each image of Dockerfile and docker-compose.yml by digest (needs docker and a network; CHECK=1 only looks)
	@python3 -m distribution.image_digests $(if $(CHECK),--check)

clean: ## remove what can be made again: the environment and caches (state in var/ stays)
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
