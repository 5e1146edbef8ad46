# Needs Python 3.11 or newer and make; everything else goes into .venv.
PYTHON ?= python3
READY  := .venv/ready
TOOLS  := .venv/tools
INSTALL = .venv/bin/python -m pip install -qq -e

.DEFAULT_GOAL := help
.PHONY: help run studies test export docs clean

help:  ## list these verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

run: $(READY)  ## what this is, in a minute: figures and case pages in runs/latest/index.html (FILES="a.png …" joins yours)
	@.venv/bin/pneumo demo $(FILES)

studies: $(TOOLS)  ## execute the studies into runs/ (DATA=pneumoniamnist refuses phantoms; ARGS="…" goes to `pneumo run`)
	@.venv/bin/pneumo run $(if $(DATA),--data $(DATA)) $(ARGS)

test: $(TOOLS)  ## everything that CI checks, half an hour on two cores (ARGS="00_data site" runs those alone)
	@.venv/bin/python tools/check.py $(ARGS)

export: $(TOOLS)  ## bring pneumo/ and README.md in step with the notebooks
	@.venv/bin/python tools/export.py

docs: $(TOOLS)  ## build the site into _docs/
	@.venv/bin/python tools/docs.py

clean:  ## remove what run, test and docs wrote
	rm -rf runs _proc _docs build dist *.egg-info

$(READY): settings.ini setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("pneumo needs Python 3.11 or newer and found " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")'
	@echo "Installing pneumo and what it needs into .venv (once, some minutes) …"
	@$(PYTHON) -m venv .venv
	@$(INSTALL) .
	@touch $@

$(TOOLS): $(READY)
	@echo "Installing what the tests, the studies and the site need besides (once, a minute or two) …"
	@$(INSTALL) '.[dev]'
	@touch $@
