"""What the Launch form starts from, and the command line that its settings equal."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from workbench import spec
from workbench.spec import SpecError

_hydra = threading.Lock()  # Hydra keeps its state in the process, and every browser session is a thread


@lru_cache(maxsize=256)
def _composed(words: tuple[str, ...]) -> dict[str, Any]:
    with _hydra:
        return spec.compose_tree(words)


def resolved(words: Sequence[str]) -> dict[str, Any]:
    """The whole tree that these words give, defaults filled in; as far as it goes where a required value is missing."""
    tree = _composed(tuple(words))
    try:
        return spec.parse(tree).model_dump(mode="json")
    except SpecError:
        return tree


def command(words: Sequence[str], tree: dict[str, Any]) -> str:
    """`workbench run …`: the choices, then only what differs from them."""
    import shlex

    changed = spec.overrides_between(resolved(words), tree)
    return " ".join(["workbench run", *(shlex.quote(word) for word in (*words, *changed))])


def command_of(tree: dict[str, Any]) -> str:
    """The command line that gives a run's settings."""
    return command(words_of(tree), tree)


def words_of(tree: dict[str, Any]) -> list[str]:
    """The choices nearest to a resolved tree: its algorithm and its backend by name."""
    words = []
    for group in ("algorithm", "backend"):
        name = tree.get(group, {}).get("name")
        if name in spec.choices(group):
            words.append(f"{group}={name}")
    return words
