# Two commands do all set-up on a machine with only Python 3.11 and make: `make demo` and `make test`.

.DEFAULT_GOAL := help
.PHONY: help demo test scenarios soak pictures setup setup-dev format clean

# Handed to the demo or the soak, as in: make demo ARGS="--exit --iid", make soak ARGS="--minutes 3 --seed 7"
ARGS ?=
# Steps of scripts/check, all when empty, as in: make test STEPS="lint types"
STEPS ?=

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup ## Train for real: a server, five devices and a live page on 127.0.0.1:8000 (ARGS="--help" for options)
	@exec .venv/bin/python manage.py demo $(ARGS)

test: setup-dev ## Check everything: style, types, layers, migrations, tests (STEPS="lint types" for some)
	@exec scripts/check $(STEPS)

scenarios: setup-dev ## Try the twenty-five hard scenarios in every cell of their table (ARGS for pytest)
	@exec scripts/check tests -- tests/scenarios $(ARGS)

soak: setup-dev ## Restart every part at random under 1,000 sockets for 30 minutes (ARGS="--help" for options)
	@exec .venv/bin/python -m tests.soak $(ARGS)

pictures: setup-dev ## Take the documents' pictures anew, of real runs (some minutes)
	@QFLARE_SCREENSHOTS=1 .venv/bin/python -m pytest -q tests/browser/pictures.py tests/browser/test_overview.py

setup: ## Make .venv and install requirements.txt; at once when nothing changed
	@scripts/setup

setup-dev: ## The same with requirements-dev.txt and the programs that tests start
	@scripts/setup --dev

format: setup-dev ## Format the Python code and mend what the linter can mend
	@.venv/bin/python -m ruff check --quiet --fix . ; .venv/bin/python -m ruff format .

clean: ## Remove .venv and what the tools left behind; var/ with its models stays
	@rm -rf .venv build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
