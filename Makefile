# The targets a person needs; each sets up what it needs first. `make serve` and `make test` work on
# a machine that has only Python >= 3.11 with venv, and make.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
BIN := .venv/bin

.PHONY: serve test chaos check format train example clean

serve: .venv/ready
	@ls -d bundles/demo/[1-9]* >/dev/null 2>&1 || $(BIN)/deepfm demo
	$(BIN)/deepfm serve bundles/demo --host $(HOST) --port $(PORT)

test: .venv/ready
	$(BIN)/python -m pytest -m "not slow"

chaos: .venv/ready
	$(BIN)/python -m tests.chaos

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

train: .venv/ready
	@test -n "$(SPEC)" || { echo "give the spec to train: make train SPEC=spec.toml"; exit 2; }
	$(BIN)/deepfm train $(SPEC)

example: .venv/ready
	@test -n "$(NAME)" || { echo "give the example: make example NAME=ml_1m"; exit 2; }
	$(BIN)/python -m examples.run $(NAME)

clean:
	rm -rf .venv bundles runs build .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info features/*.so service/*.so model/*.so

# One environment for everything, made anew when what it is made of changes.
.venv/ready: pyproject.toml constraints.txt $(wildcard features/_*.[ch] service/_*.[ch] model/_*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "Python 3.11 to 3.13 is needed; name one with PYTHON=..."; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train,serve,dev]'
	@touch $@
