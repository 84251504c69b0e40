# make run     train the GPT of step 07 on Moby Dick and read what it writes
# make test    pass the tests
# make record  record all seven steps again into artifacts/
# make readme  fill in the README's figures from the records
# make docs    make the deck, the article and the notebooks from the steps
# make planted plant every known bug and see that the tests catch it

PYTHON ?= python3
BIN    := .venv/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: run test record readme docs planted
run: .venv/base
	$(BIN)/python -m steps.07_full_gpt

test: .venv/test
	$(BIN)/python -m pytest -n auto

record: .venv/base
	$(BIN)/python -m steps.record

readme: .venv/base
	$(BIN)/python -m steps.readme
	$(BIN)/python -m steps.llm_usage

docs: .venv/docs
	command -v npm >/dev/null && npm install --prefix slides --no-package-lock --no-audit --no-fund --silent || true
	$(BIN)/python -m slides.pictures
	$(BIN)/python -m slides.equations
	$(BIN)/python -m slides.build

planted: .venv/test
	$(BIN)/python -m steps.bugs verify

.venv/base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing (PyTorch is large: a few minutes on a slow line)"
	$(PIP) -e .
	touch $@

.venv/test: .venv/base
	$(PIP) -e '.[test,docs,textbooks]'
	touch $@

.venv/docs: .venv/base
	$(PIP) -e '.[docs]'
	touch $@
