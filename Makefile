# make run     train the GPT of step 07 on Moby Dick and read what it writes
# make test    pass the tests
# make record  record all seven steps again into artifacts/
# make readme  fill in the README's figures from the records
# make planted plant every known bug and see that the tests catch it

PYTHON ?= python3
BIN    := .venv/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: run test record readme planted
run: .venv/base
	$(BIN)/python -m steps.07_full_gpt

test: .venv/test
	$(BIN)/python -m pytest -n auto

record: .venv/base
	$(BIN)/python -m steps.record

readme: .venv/base
	$(BIN)/python -m steps.readme

planted: .venv/test
	$(BIN)/python -m steps.bugs verify

.venv/base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing (PyTorch is large: a few minutes on a slow line)"
	$(PIP) -e .
	touch $@

.venv/test: .venv/base
	$(PIP) -e '.[test,textbooks]'
	touch $@
