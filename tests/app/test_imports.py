"""The app is a thin reader: it imports no training library, neither by a word nor on the way."""

import ast
import os
import subprocess
import sys

import pytest

from tests.app.conftest import APP

HEAVY = ("torch", "megatron", "dask", "distributed", "dask_jobqueue", "transformers", "peft", "datasets")
ALLOWED = (
    "workbench.api",
    "workbench.machines.connections",
    "workbench.machines.logins",
    "workbench.metrics",
    "workbench.views",
    "workbench.settings",
    "workbench.settings.spec",
    "workbench.settings.stored",
    "workbench.rundir.adherence",
    "workbench.rundir.annotations",
    "workbench.rundir.listing",
    "workbench.rundir.pipelines",
    "workbench.rundir.store",
    "workbench.rundir.files",
    "workbench.rundir.lines",
    "workbench.rundir.opening",
    "workbench.rundir.answers",
    "workbench.rundir.permission",
    "workbench.rundir.rollouts",
    "workbench.backends.base",
    "ui",
)
SCRIPTS = sorted(APP.rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_page_imports_only_the_facade(path):
    for name in imports(path):
        assert name.split(".")[0] not in HEAVY, name
        if name.split(".")[0] == "workbench":
            assert name.startswith(ALLOWED), name


@pytest.mark.parametrize("page", sorted(path.stem for path in (APP / "pages").glob("*.py")))
def test_a_page_loads_no_training_library(page, runs):
    script = f"""
import sys
sys.path.insert(0, {str(APP)!r})
from streamlit.testing.v1 import AppTest
from tests.app import synthetic
from pathlib import Path
synthetic.gallery(Path({str(runs)!r}))
import ui.live
page = AppTest.from_file({str(APP / "main.py")!r}, default_timeout=240).run().switch_page("pages/{page}.py").run()
assert not page.exception, page.exception
assert page.markdown
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, env=os.environ, cwd=APP.parent, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
