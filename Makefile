# The verbs. Everything they need besides Python 3.11, a C compiler and make goes into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
SOAK_MINUTES ?= 5
FUZZ_EXAMPLES ?= 20000

# meson-python finds meson and ninja on PATH, because the editable build is not isolated.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

INSTALL := pip install -q --no-build-isolation -e '.[dev,demo]'
REQUIRES := import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])
SETUP := -Dtests=enabled -Dbindings=disabled -Dwerror=true
SETUP_asan := -Db_sanitize=address,undefined -Db_lundef=false
SETUP_tsan := -Db_sanitize=thread -Db_lundef=false
SUITES_tsan := --no-suite alone

.PHONY: demo test lint asan tsan bench net bench-wan soak fuzz wheel dev clean
.DELETE_ON_ERROR:

demo: .venv/installed
	collect demo

test: .venv/installed build-c/build.ninja
	meson test -C build-c --print-errorlogs
	pytest

lint: .venv/installed build-c/build.ninja
	ruff check .
	ruff format --check .
	mypy
	meson compile -C build-c

asan tsan: %: build-%/build.ninja
	TEST_ALARM_S=240 meson test -C build-$* $(SUITES_$*) --print-errorlogs

bench: .venv/installed
	collect bench all-reduce

bench-wan: .venv/installed
	python -m benchmarks.wan

net: .venv/installed
	pytest -m net tests/net

soak: .venv/installed
	collect stress --minutes $(SOAK_MINUTES)
	collect stress --minutes $(SOAK_MINUTES) --transport tcp --peers 8

fuzz: .venv/installed
	pytest --fuzz-examples=$(FUZZ_EXAMPLES) tests/unit

wheel: .venv/tools
	pip wheel -q --no-deps --wheel-dir dist .

dev: .venv/tools
	$(INSTALL) -Csetup-args=-Dwerror=true
	touch .venv/installed

clean:
	rm -rf build build-* dist .venv/installed .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find bindings collect tests -name __pycache__ -prune -exec rm -rf {} +

# ---- what the verbs stand on --------------------------------------------------------------------

.venv/tools: pyproject.toml
	"$(PYTHON)" -m venv .venv
	requires=$$(python -c '$(REQUIRES)') && pip install -q $$requires
	touch $@

.venv/installed: .venv/tools
	$(INSTALL)
	touch $@

build-%/build.ninja: .venv/tools
	meson setup $(if $(wildcard $@),--reconfigure) build-$* $(SETUP) $(SETUP_$*)
	touch $@
