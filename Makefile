# The same commands for people and for CI. Each makes what it needs in .venv; uv is used where it is there.
.PHONY: demo test test-ragas stress check check-image fix quality bench-serve bench-expansion bench-ingest bench-folders bench-rerank bench-gpu bench-conformance bench-scale clean help

PYTHON ?= python3
BIN := .venv/bin
UV := $(shell command -v uv 2>/dev/null)

demo: .venv/.core ## index the bundled guide and ask it three questions
	@$(BIN)/crossrag demo

test: .venv/.dev ## run all tests
	$(BIN)/python -m pytest
	@$(MAKE) --no-print-directory .venv-ragas/.done \
	&& $(MAKE) --no-print-directory test-ragas \
	|| { test ! -e .venv-ragas/.done && echo "NOT TESTED: RAGAS; its environment could not be made"; }

test-ragas: .venv-ragas/.done ## run RAGAS itself against a scripted judge, in an environment of its own
	.venv-ragas/bin/python -m pytest tests/evaluation/test_ragas.py

stress: .venv/.dev ## kill, fail and change at random for long (STRESS_SEED, STRESS_EXAMPLES, STRESS_OPERATIONS, STRESS_SECONDS=number)
	$(BIN)/python -m pytest -m stress -s

check: .venv/.dev ## format, lint, types, imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

check-image: ## run the image's own command in a bare environment, as another user (needs root)
	docker/check.sh

fix: .venv/.dev ## format and mend what can be mended
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

quality: .venv/.dev ## measure everything on labelled data, write docs/quality.md (DATA=folder, QUESTIONS=number)
	$(BIN)/python bench/quality.py $(if $(DATA),--data $(DATA)) $(if $(QUESTIONS),--questions $(QUESTIONS))

bench-expansion: .venv/.dev ## what expansions are worth, with and without each (DATA=folder of BEIR sets)
	$(BIN)/python bench/expansion.py $(if $(DATA),--data $(DATA))

bench-ingest: .venv/.dev ## ingestion by stage, and hybrid queries (DATA=folder of one BEIR set, SIZES="1000 10000")
	$(BIN)/python bench/ingest.py --data $(DATA) $(if $(SIZES),--sizes $(SIZES))

bench-folders: .venv/.dev ## whole answers over folders of files (DATA=folder)
	$(BIN)/python bench/folders.py $(if $(DATA),--data $(DATA))

bench-scale: .venv/.dev ## bytes and milliseconds by number of chunks, writes docs/scale.md (DATA=folder, SIZES="1000 10000")
	$(BIN)/python bench/scale.py --data $(DATA) $(if $(SIZES),--sizes $(SIZES))

bench-serve: .venv/.dev $(if $(PEER),.venv/.bench) ## searches per second through the server (DATA=folder of one BEIR set, PEER=1 for LangChain beside it)
	$(BIN)/python bench/serve.py --data $(DATA) $(if $(PEER),--peer)

bench-rerank: .venv/.bench ## our reranker beside other libraries (DATA=folder of BEIR sets, JSON=1 for one object)
	@$(BIN)/python bench/rerank.py $(if $(DATA),--data $(DATA)) $(if $(JSON),--json)

bench-gpu: .venv/.bench ## the reranker on a GPU beside sentence-transformers (DEVICE=cuda:1, PEAK=TFLOP/s of the card)
	$(BIN)/python bench/gpu.py $(if $(DEVICE),--device $(DEVICE)) $(if $(PEAK),--peak $(PEAK))

bench-conformance: .venv/.bench ## the conformance suite over other libraries and ours, write docs/conformance.md
	$(BIN)/python bench/conformance.py --out docs/conformance.md

clean: ## remove what the commands made
	rm -rf .venv .venv-ragas .quality .scale .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

.venv/pyvenv.cfg:
ifdef UV
	uv venv --quiet --python $(PYTHON) .venv
else
	$(PYTHON) -m venv .venv
endif

.venv/.core: .venv/pyvenv.cfg pyproject.toml
ifdef UV
	uv pip install --quiet --python $(BIN)/python -e .
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
endif
	@touch $@

.venv/.bench: .venv/.dev bench/requirements.txt
ifdef UV
	uv pip install --quiet --python $(BIN)/python -r bench/requirements.txt
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r bench/requirements.txt
endif
	@touch $@

# RAGAS wants an older openai than everything else here does.
.venv-ragas/.done: pyproject.toml
ifdef UV
	test -d .venv-ragas || uv venv --quiet --python $(PYTHON) .venv-ragas
	uv pip install --quiet --python .venv-ragas/bin/python -e '.[eval,ragas]' 'pytest>=9' 'pytest-asyncio>=1' 'pytest-socket>=0.8'
else
	test -d .venv-ragas || $(PYTHON) -m venv .venv-ragas
	.venv-ragas/bin/python -m pip install --quiet --disable-pip-version-check -e '.[eval,ragas]' \
	  'pytest>=9' 'pytest-asyncio>=1' 'pytest-socket>=0.8'
endif
	@touch $@

.venv/.dev: .venv/.core
ifdef UV
	uv pip install --quiet --python $(BIN)/python -e . --group dev
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$($(BIN)/python scripts/dev_requirements.py)
endif
	@touch $@
