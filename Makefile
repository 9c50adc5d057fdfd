# The front commands. Each makes the environment it needs in .venv first; a second call finds it made and needs no network.
#
#   make run      everything on this machine: Kafka, Postgres and all roles, with data under .data
#   make test     the whole suite                (PYTEST_ARGS="-k mailbox -x" is passed on)
#   make check    lint, format, types, import contracts
#   make bench    measures and prints
#   make faults   every kill, freeze and cut, not only the few of `make test`
#   make judges   the providers' own client libraries drive our doubles of them (large, so in an environment of their own)
#   make lock     write the lock files anew from the *.in files (LOCK_ARGS=--upgrade takes newer versions)
#
# PYTHON=python3.12 chooses the interpreter, UP_ARGS="…" is passed to `main.py up`.

VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(VENV)/uv/bin/uv
SYNC   := sh .ci/environment
PYTEST := $(BIN)/python -m pytest
# A good part of most tests is waiting: one worker more than there are processors, and four at most.
WORKERS := $(shell n=$$(getconf _NPROCESSORS_ONLN); [ $$n -lt 3 ] && echo 3 || echo 4)

RUNS   := $(VENV)/made-from-requirements.lock
TESTS  := $(VENV)/made-from-requirements-dev.lock
JUDGES := .venv-judges/made-from-requirements-judges.lock
# An environment that can test can run as well; syncing it to the smaller lock would take the tests' packages away.
EITHER := $(if $(wildcard $(TESTS)),$(TESTS),$(RUNS))

LOCKING := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header

.PHONY: run test check bench faults judges lock clean
.DEFAULT_GOAL := run

run: $(EITHER)
	@exec $(BIN)/python main.py up $(UP_ARGS)

test: $(TESTS)
	$(PYTEST) -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

check: $(TESTS)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(TESTS)
	$(PYTEST) tests/benchmarks -m bench -s $(PYTEST_ARGS)

faults: $(TESTS)
	FAULTS=full $(PYTEST) tests/faults $(PYTEST_ARGS)

judges: $(JUDGES)
	.venv-judges/bin/python -m pytest tests/support_tests -m judges $(PYTEST_ARGS)

lock: $(UV)
	$(LOCKING) $(LOCK_ARGS) requirements.in --output-file requirements.lock
	$(LOCKING) $(LOCK_ARGS) requirements-dev.in --constraints requirements.lock --output-file requirements-dev.lock
	$(LOCKING) $(LOCK_ARGS) requirements-judges.in --constraints requirements-dev.lock --output-file requirements-judges.lock

clean:
	rm -rf $(VENV) .venv-judges

$(UV): .ci/environment .ci/requirements-uv.lock
	@$(SYNC)

$(RUNS): requirements.lock .ci/environment .ci/requirements-uv.lock
	@$(SYNC) requirements.lock
	@touch $@

$(TESTS): requirements-dev.lock .ci/environment .ci/requirements-uv.lock
	@$(SYNC) requirements-dev.lock
	@touch $@ $(RUNS)

$(JUDGES): requirements-judges.lock .ci/environment .ci/requirements-uv.lock
	@$(SYNC) requirements-judges.lock .venv-judges
	@touch $@
