"""The settings that a run's folder holds, also one that an earlier version made: checked, or as a plain tree for lists and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from workbench.rundir.store import RunDir
from workbench.settings.modules import NO_ALGORITHM
from workbench.settings.spec import Experiment
from workbench.settings.upgrade import Tree, upgrade

KEPT_TREES = 16384
"""More than there are runs in a list: one entry too few, and a list that is read from its top to its end finds none of them."""


def experiment(run: RunDir) -> Experiment:
    """What the run is.

    Raises:
        NewerFormat: a newer version made the folder; SpecError: this version does not have these settings.
    """
    return Experiment.from_yaml(run.spec_path.read_text(), run.readable_format())


def spec_tree(run: RunDir) -> Tree:
    """The run's settings, unchecked, in today's names: runs that this version could not start are listed too.

    It is shared: do not change it. A file that is not there or no YAML mapping gives an empty tree. Raises NewerFormat as `experiment` does.
    """
    format, path = run.readable_format(), run.spec_path
    try:
        return _tree(path, path.stat().st_mtime_ns, format)
    except (OSError, yaml.YAMLError):
        return {}


@lru_cache(maxsize=KEPT_TREES)
def _tree(path: Path, _changed_ns: int, format: int) -> Tree:
    tree = yaml.safe_load(path.read_text())
    return upgrade(tree, format) if isinstance(tree, dict) else {}


def job(tree: Mapping[str, Any]) -> str:
    """A run's kind of job, by its settings; a run that is older than kinds of job trains."""
    return str(tree.get("job", {}).get("name", "train"))


def work(tree: Mapping[str, Any]) -> str:
    """What a run does, in a word or two: its algorithm where it trains, else its kind of job with its algorithm: `dpo`, `generate`, `evaluate · dpo`."""
    kind, algorithm = job(tree), str(tree.get("algorithm", {}).get("name", "?"))
    if kind == "train":
        return algorithm
    return kind if algorithm in (NO_ALGORITHM, "?") else f"{kind} · {algorithm}"
