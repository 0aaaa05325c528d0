# On a bare machine with Python 3.11, git and make:
#
#   make demo     train a small model in several ways and compare the losses   (BACKEND=jax)
#   make test     all tests, on TensorFlow, JAX and PyTorch, and on the oldest supported Keras
#   make lint     ruff and pyright
#   make audit    known vulnerabilities of what is installed, where the index tells of them
#   make fuzz     the readers of files against a fuzzer, for SECONDS=60
#   make bench    what all this costs, and what others take, into docs/benchmarks.md (QUICK=1, LARGE=1)
#   make docs     the documentation site, into build/docs
#   make clean    remove the environment and what the tools left
#
# Everything is installed into .venv, in the versions of constraints.txt, and only once.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BACKEND ?= jax
OLDEST := 3.8.0

VENV := .venv
BIN := $(VENV)/bin
# Python compiles a module when it is first imported; most of what is installed never is.
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check install --no-compile
ALL := $(VENV)/.with-all
OLD_KERAS := $(VENV)/keras-$(OLDEST)
AUDIT := $(VENV)/audit
# The demonstration needs one backend: no other is installed for its sake.
ONE := $(or $(wildcard $(ALL)),$(VENV)/.with-$(BACKEND))

# What Keras and the backends warn of would fill screens; a warning of ours fails its test.
PYTEST := $(BIN)/python -m pytest -q --disable-warnings
QUIET := TF_CPP_MIN_LOG_LEVEL=3

# Hundreds of processes import the same modules: they are compiled once, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: demo test test-core test-jax test-tensorflow test-torch test-oldest lint audit fuzz bench \
  docs clean help

help:
	@sed -n '3,10s/^#   //p' Makefile

demo: $(ONE)
	@KERAS_BACKEND=$(BACKEND) $(BIN)/lossledger demo -o runs

# Three at a time: a part waits now and then, for the disk or for what writes twice a second, and
# with two a small machine's two processors would stand idle then. The longest first.
PARTS := test-tensorflow test-core test-jax test-oldest test-torch
test: $(ALL) $(OLD_KERAS)/.made
	@echo "== five parts, three at a time, some minutes; each prints when it has ended"
	@$(MAKE) --no-print-directory -j3 -Otarget $(PARTS)
	@echo "== all tests passed"

test-core: $(ALL)
	@echo "== the command line, the statistics, the files, the pages in Chromium"
	@$(QUIET) KERAS_BACKEND=jax $(PYTEST) tests/unit tests/docs tests/cli tests/crash tests/page

test-jax test-tensorflow test-torch: test-%: $(ALL)
	@echo "== recording on $*"
	@$(QUIET) KERAS_BACKEND=$* $(PYTEST) tests/keras

# Not on JAX: this Keras needs an older one. Not on torch: it fails there on its own. What meets
# Keras: what is made of the entries then is the same on every Keras.
test-oldest: $(ALL) $(OLD_KERAS)/.made
	@echo "== recording with Keras $(OLDEST), the oldest supported, on tensorflow"
	@$(QUIET) KERAS_BACKEND=tensorflow PYTHONPATH=$(CURDIR)/$(OLD_KERAS) $(PYTEST) \
	  $(addprefix tests/keras/test_,$(addsuffix .py,modes data life recordings custom cases events \
	  replicas loop loop_compiled loop_steps))

lint: $(ALL)
	@echo "== ruff and pyright"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python

# Its own environment: what audits should not decide the versions of what is audited.
audit: $(ALL) $(AUDIT)/.made
	@echo "== known vulnerabilities of what is installed"
	@$(BIN)/python .ci/audit.py $(AUDIT)/bin/pip-audit

fuzz: $(VENV)/.with-fuzz
	@SECONDS=$(or $(SECONDS),60) $(BIN)/python tests/fuzz

bench: $(ALL)
	@$(QUIET) QUICK=$(QUICK) LARGE=$(LARGE) $(BIN)/python benchmarks
	@[ "$(QUICK)" ] || $(BIN)/python tests/unit/test_docs.py  # the guide shows some of it

docs: $(VENV)/.with-docs
	@$(BIN)/zensical build --strict --clean
	@echo "== the site begins at build/docs/index.html; its search needs a server:"
	@echo "   python3 -m http.server -d build/docs"

clean:
	rm -rf $(VENV) runs dist build .pytest_cache .ruff_cache .hypothesis .benchmarks
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
	  f"lossledger needs Python 3.11 or newer. Received: {sys.version.split()[0]}. " \
	  "Name one: make PYTHON=/path/to/python3.11")'
	@echo "== making $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.with-jax $(VENV)/.with-tensorflow $(VENV)/.with-torch: $(VENV)/.with-%: \
    $(VENV)/.made constraints.txt pyproject.toml
	@echo "== installing lossledger with $*"
	@$(PIP) -c constraints.txt -e '.[$*]'
	@touch $@

$(ALL): $(VENV)/.made constraints.txt pyproject.toml
	@echo "== installing lossledger with tensorflow, jax, torch and the tools (minutes, once)"
	@$(PIP) -c constraints.txt -e '.[tensorflow,jax,torch,dev]'
	@touch $@

$(VENV)/.with-fuzz: $(VENV)/.made constraints.txt pyproject.toml
	@echo "== installing lossledger with the fuzzer"
	@$(PIP) -c constraints.txt -e '.[fuzz]'
	@touch $@

# Only with this extra: reading docstrings needs no backend.
$(VENV)/.with-docs: $(VENV)/.made constraints.txt pyproject.toml
	@echo "== installing lossledger with what builds the site"
	@$(PIP) -c constraints.txt -e '.[docs]'
	@touch $@

$(AUDIT)/.made: $(VENV)/.made constraints.txt
	@echo "== installing pip-audit beside it"
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip -qq --disable-pip-version-check install -c constraints.txt \
	  pip-audit && touch $@ || true

$(OLD_KERAS)/.made: $(ALL)
	@echo "== installing Keras $(OLDEST) beside it"
	@$(PIP) --upgrade --no-deps --target $(OLD_KERAS) keras==$(OLDEST)
	@touch $@
