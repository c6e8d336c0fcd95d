# The commands of the project. `make` lists them.

VENV := .venv
BIN := $(VENV)/bin
# Spark's workers and `mlflow run` take the `python` that comes first in PATH.
ACTIVATE := PATH="$(CURDIR)/$(BIN):$$PATH"
PORT ?= 5000
PART ?= 1/1
LOCK := uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--no-annotate --no-emit-index-url

# Where it is set, as in many containers, each process would compile all of its libraries anew: seconds a start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev java search test test-long test-all bench-quick check docs doctor ui screenshots format lock

help:  ## list the commands
	@awk -F ':.*  ## ' '/^[a-z-]+:.*  ## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

setup: java $(VENV)/.installed  ## make .venv and install what a search needs

setup-dev: java $(VENV)/.installed-dev

java:
	@scripts/ensure_java.sh

# Stamps: an environment is made again only when what decides it has changed.
$(VENV)/.installed: requirements.lock pyproject.toml scripts/install.sh
	@scripts/install.sh requirements.lock
	@touch $@

$(VENV)/.installed-dev: requirements-dev.lock pyproject.toml scripts/install.sh
	@scripts/install.sh requirements-dev.lock
	@touch $(VENV)/.installed $@

search: setup  ## run a search: make search ARGS="-P experiment=experiments/football.yaml -P images=FOLDER"
	@$(ACTIVATE) scripts/search.sh $(ARGS)
	@echo "See the runs and the model: make ui"

test: check  ## lint, types, import rules and the tests that take seconds
	@$(ACTIVATE) pytest -m "not long" --numprocesses 2 --dist loadfile $(ARGS)

test-long: setup-dev  ## the long tests: whole searches, every network; the first quarter of them: PART=1/4
	@$(ACTIVATE) pytest -m long --splits $(notdir $(PART)) --group $(patsubst %/,%,$(dir $(PART))) \
		--durations-path tests/long_durations.json $(ARGS)

test-all: test test-long

bench-quick: setup-dev  ## the key ratios, in under three minutes: look at them before and after a change
	@$(ACTIVATE) python bench/trials.py --trials 12 --rounds 1 --only optuna 2> /dev/null
	@$(ACTIVATE) python bench/featurize.py --networks MobileNetV2 --count 128 --rounds 1 \
		--precisions float32 --batches 32 2> /dev/null

check: setup-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

docs: setup-dev  ## make the documentation's site: site/index.html
	@$(ACTIVATE) NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet $(ARGS)
	@echo "The documentation is site/index.html; with its search: $(BIN)/python -m http.server -d site"

doctor: $(VENV)/.installed  ## see whether a search would run here, and what to type if not
	@$(ACTIVATE) python -m tuner doctor $(ARGS)

ui: setup  ## open the MLflow UI on what was logged (PORT=5000)
	@$(ACTIVATE) python -m tuner ui --port $(PORT)

screenshots: setup-dev  ## make the pictures of the documentation, docs/img (needs Chromium)
	@$(ACTIVATE) python scripts/screenshots.py

format: setup-dev  ## lay the code out
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: export UV_CUSTOM_COMPILE_COMMAND = make lock
lock:  ## resolve the lock files (needs uv; ARGS=--upgrade for newer versions)
	$(LOCK) $(ARGS) --output-file requirements.lock
	$(LOCK) $(ARGS) --extra dev --extra docs --constraint requirements.lock --output-file requirements-dev.lock
