"""The settings that a run's folder holds, also one that an earlier version made: checked, or as a plain tree for lists and comparisons."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import yaml

from workbench.rundir.store import RunDir
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
