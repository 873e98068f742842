"""The examples in the API's docstrings, run as they are written."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import workbench as wb
from tests.app import synthetic, synthetic_rollouts
from workbench import notebook
from workbench.rundir.store import State

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
MODULES = ["workbench", *(f"workbench.notebook.{each.name}" for each in pkgutil.iter_modules(notebook.__path__) if not each.ispkg)]


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """What the examples speak of: two runs of DPO that differ in one setting, and one of PPO with rollouts."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    first = synthetic.make(tmp_path, "dpo_demo", 3, 3, state=State.COMPLETED)
    second = synthetic.make(tmp_path, "dpo_demo", 3, 3, state=State.COMPLETED, overrides=("algorithm.beta=0.3",))
    run = synthetic_rollouts.make(tmp_path, 2, name="zz-ppo", state=State.COMPLETED)
    return {"wb": wb, "first": wb.Run(first), "second": wb.Run(second), "run": wb.Run(run)}


@pytest.mark.parametrize("module", MODULES)
def test_examples_give_what_they_say(module: str, examples) -> None:
    result = doctest.testmod(importlib.import_module(module), extraglobs=examples, optionflags=OPTIONS)
    assert result.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    counts = {module: sum(len(each.examples) for each in finder.find(importlib.import_module(module))) for module in MODULES}
    assert all(counts[f"workbench.notebook.{name}"] for name in ("experiments", "runs", "rollout_table", "comparison")), counts
