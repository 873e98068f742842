"""Settings of run folders that an earlier version made, by today's names: the one place that knows what they were called before.

A folder's format number (`workbench.rundir.store.FORMAT`) says how its settings are written. Whoever renames or moves a setting adds a
function here that turns the tree of one format into that of the next; where the number was raised already since the last release, that
format's function is extended.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

Tree = dict[str, Any]


def _kinds(tree: Tree) -> Tree:
    """A run of format 1 trains, and names both kinds of reward there were, one of them as null."""
    rewards = tree.get("algorithm", {}).get("rewards", {})
    for name, reward in rewards.items():
        if isinstance(reward, dict):
            rewards[name] = {key: value for key, value in reward.items() if value is not None}
    return {"job": {"name": "train"}, **tree}


UPGRADES: tuple[tuple[int, Callable[[Tree], Tree]], ...] = ((1, _kinds),)
"""(format, what turns a tree of this format into one of the next), ascending.

Each leaves a tree alone that has the new names already: a resume writes those into a folder before it raises the folder's number.
"""


def upgrade(tree: Tree, format: int) -> Tree:
    """The settings of a run folder of this format, as this version names them. `tree` itself stays as it is."""
    tree = copy.deepcopy(tree)
    for number, change in UPGRADES:
        if number >= format:
            tree = change(tree)
    return tree
