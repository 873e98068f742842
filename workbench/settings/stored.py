"""The settings that a run's folder holds, also one that an earlier version made: checked, or as a plain tree for lists and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.rundir import opening
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import RunDir
from workbench.settings import plain
from workbench.settings.modules import NO_ALGORITHM
from workbench.settings.spec import Experiment, parse
from workbench.settings.upgrade import Tree, upgrade

KEPT_TREES = 16384
"""More than there are runs in a list: one entry too few, and a list that is read from its top to its end finds none of them."""


def experiment(run: RunDir) -> Experiment:
    """What the run is.

    Raises:
        Unreadable: its file is missing or damaged, or a newer version made the folder; SpecError: this version does not have these settings.
    """
    format, path = run.readable_format(), run.spec_path
    return parse(upgrade(_mapping(path), format))


def spec_tree(run: RunDir) -> Tree:
    """The run's settings, unchecked, in today's names: runs that this version could not start are listed too.

    It is shared: do not change it. A file that cannot be read gives an empty tree: `problem` says why. Raises Unreadable where the status cannot be read.
    """
    known = _known(run)
    return {} if isinstance(known, Unreadable) else known


def problem(run: RunDir) -> Unreadable | None:
    """Why the run's settings cannot be read; None where they can. Raises Unreadable where the status cannot be read."""
    known = _known(run)
    return known if isinstance(known, Unreadable) else None


def _known(run: RunDir) -> Tree | Unreadable:
    format = run.readable_format()
    try:
        path = run.spec_path
        return _tree(path, opening.stat(path).st_mtime_ns, format)
    except FileNotFoundError:
        return Unreadable(run.path / "spec.yaml", "missing")
    except Unreadable as error:
        return error


@lru_cache(maxsize=KEPT_TREES)
def _tree(path: Path, _changed_ns: int, format: int) -> Tree | Unreadable:
    try:
        return upgrade(_mapping(path), format)
    except Unreadable as error:  # kept too: a list of runs asks again and again
        return error


def _mapping(path: Path) -> Tree:
    """A spec file's settings, with mappings and texts where lists of runs take them for given. Raises FileNotFoundError and Unreadable."""
    text = opening.read_text(path)
    try:
        tree = plain.load_mapping(text)
    except ValueError as error:
        raise Unreadable(path, str(error)) from None
    if wrong := _misshapen(tree):
        raise Unreadable(path, wrong)
    return tree


def _misshapen(tree: Tree) -> str:
    """What is no mapping, no text or no number where one belongs; empty where nothing is."""
    for key in SECTIONS:
        if not isinstance(tree.get(key, {}), dict):
            return f"{key}: expected a mapping, got {str(tree[key])[:40]!r}"
    for key, kind in KINDS.items():
        section, _, name = key.rpartition(".")
        value = (tree.get(section, {}) if section else tree).get(name)
        if value is not None and not isinstance(value, kind):
            return f"{key}: expected {'a text' if kind is str else 'a number' if kind is int else 'a list' if kind is list else 'a mapping'}, got {str(value)[:40]!r}"
    served = tree.get("algorithm", {}).get("served") or ()
    if unnamed := [str(role)[:40] for role in served if not isinstance(role, str) or not role.replace("_", "").isalnum()]:
        return f"algorithm.served: {unnamed[0]!r} is no role"
    return ""


SECTIONS = ("job", "algorithm", "model", "data", "validation", "checkpoint", "rollout", "watch", "backend")
KINDS = {
    **dict.fromkeys(("name", "job.name", "job.checkpoint", "algorithm.name", "model.source", "data.train", "backend.name"), str),
    "job.prompts_per_step": int,
    "algorithm.served": list,
    "algorithm.rewards": dict,
}


def job(tree: Mapping[str, Any]) -> str:
    """A run's kind of job, by its settings; a run that is older than kinds of job trains."""
    return str(tree.get("job", {}).get("name", "train"))


def work(tree: Mapping[str, Any]) -> str:
    """What a run does, in a word or two: its algorithm where it trains, else its kind of job with its algorithm: `dpo`, `generate`, `evaluate · dpo`."""
    kind, algorithm = job(tree), str(tree.get("algorithm", {}).get("name", "?"))
    if kind == "train":
        return algorithm
    return kind if algorithm in (NO_ALGORITHM, "?") else f"{kind} · {algorithm}"
