# The two commands of the README are `make run` and `make test`; both make the environment when it is missing.
PYTHON ?= python3.11
PY := .venv/bin/python
JOBS ?= 4  # test processes: most tests wait for processes of their own
export PIP_DISABLE_PIP_VERSION_CHECK = 1

AUDIT = $(PY) -m uv tool run --quiet pip-audit==2.9.0 --strict --require-hashes --disable-pip --progress-spinner off

.PHONY: env run test lint bench lock audit clean

run: .venv/.run  ## compare the four strategies on this machine
	$(PY) sim.py $(ARGS)

test: .venv/.dev lint  ## lint, types and tests
	$(PY) -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/.dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

bench: .venv/.dev  ## every figure of docs/benchmarks.md
	$(PY) -m benchmarks $(ARGS)

env: .venv/.dev

# pip compiles bytecode at install: importing TensorFlow without it takes three times as long.
.venv/.run: requirements.lock
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --require-hashes --requirement requirements.lock
	touch $@

.venv/.dev: .venv/.run requirements-dev.lock
	$(PY) -m pip install --quiet --require-hashes --requirement requirements-dev.lock
	touch $@

lock: .venv/.dev  ## renew both locks: hashes of every platform's files, no registry addresses
	$(PY) -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --python-version 3.11 --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
	$(PY) -m uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --python-version 3.11 --custom-compile-command "make lock" --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

# An answer that is missing is no good news: without --strict, packages that the database does not answer for are skipped.
audit: .venv/.dev  ## ask the vulnerability database about both locks; needs the internet
	@said=$$($(AUDIT) --requirement requirements.lock --requirement requirements-dev.lock 2>&1); status=$$?; echo "$$said"; \
	case "$$status $$said" in "0 "*|*"Found "*" known vulnerabilit"*) ;; \
	*) echo "make audit: the vulnerability database could not be asked, so nothing is known; it needs the internet" >&2;; esac; \
	exit $$status

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache
