"""What the Launch form starts from, and the command line that its settings equal."""

from __future__ import annotations

import copy
import shlex
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import streamlit as st

from ui import frame
from workbench.api import Run
from workbench.settings import composing, spec
from workbench.settings.composing import SpecError
from workbench.settings.stored import spec_tree
from workbench.views import text

NOTHING = "none"
_hydra = threading.Lock()  # Hydra keeps its state in the process, and every browser session is a thread


@dataclass(frozen=True)
class Start:
    """Where the form begins: the words that give the tree, the choice of each group in it (None where no choice gives it), the tree."""

    name: str
    words: tuple[str, ...]
    chosen: dict[str, str | None]
    tree: dict[str, Any]


@lru_cache(maxsize=512)
def _composed(words: tuple[str, ...]) -> dict[str, Any]:
    with _hydra:
        return composing.compose_tree(words)


def resolved(words: Sequence[str]) -> dict[str, Any]:
    """The whole tree that these words give, defaults filled in; as far as it goes where a required value is missing."""
    tree = copy.deepcopy(_composed(tuple(words)))
    try:
        return spec.parse(tree).model_dump(mode="json")
    except SpecError:
        return tree


def command(words: Sequence[str], tree: dict[str, Any]) -> str:
    """`workbench run …`: the choices, then only what differs from them."""
    changed = composing.overrides_between(spec.filled(_composed(tuple(words))), tree)
    return " ".join(["workbench run", *(shlex.quote(word) for word in (*words, *changed))])


def command_of(tree: dict[str, Any]) -> str:
    """The command line that gives a run's settings."""
    return command(words_of(tree), tree)


def words_of(tree: dict[str, Any]) -> list[str]:
    """The choices that a resolved tree holds: its algorithm and its backend by name."""
    names = {group: tree.get(group, {}).get("name") for group in ("algorithm", "backend")}
    return [f"{group}={name}" for group, name in names.items() if name in composing.choices(group)]


def groups() -> list[str]:
    """What can be chosen by name, beside the experiment, in the form's order."""
    first = ["algorithm", "model", "data", "backend"]
    return [*first, *(group for group in composing.groups() if group not in (*first, "experiment"))]


def start(source: Run | None) -> Start:
    """The cloned run's settings, or those of the experiment chosen above the form."""
    if source is not None:
        tree = spec_tree(source.dir)
        st.info(f"The form holds the settings of **{frame.plain(source.id)}**.", icon=":material/content_copy:")
        names = dict(word.split("=", 1) for word in words_of(tree))
        return Start(source.id, tuple(words_of(tree)), {group: names.get(group) for group in groups()}, tree)
    experiments = [NOTHING, *composing.choices("experiment")]
    wanted = st.query_params.get("experiment", "dpo_demo")
    picked = st.selectbox(
        "Start from an experiment",
        experiments,
        index=experiments.index(wanted) if wanted in experiments else 0,
        help="An experiment sets several choices at once: a file in `conf/experiment/`.",
        width=360,
        key="launch-experiment",
        persist_state="session",
    )
    words = () if picked in (NOTHING, None) else (f"experiment={picked}",)
    return Start(picked or NOTHING, words, {group: _choice(words, group) for group in groups()}, resolved(words))


def choose(begin: Start) -> tuple[list[str], dict[str, Any]]:
    """A select for each group. Returns the words and the tree with the choices in it."""
    words, tree = list(begin.words), copy.deepcopy(begin.tree)
    listed = groups()
    where = begin.name if begin.name in composing.choices("experiment") else "the run"
    for group, column in zip(listed, st.columns(len(listed), gap="medium"), strict=True):
        options, now = composing.choices(group), begin.chosen[group]
        index = options.index(now) if now in options else None
        kept = f"as in {where}" if begin.tree.get(group) else "none"
        picked = column.selectbox(
            text.title(group),
            options,
            index=index,
            placeholder=kept,
            key=f"launch-{begin.name}-{group}",
            help=f"A file in `conf/{group}/`.",
            persist_state="session",
        )
        if picked is not None and picked != now:
            words = [word for word in words if not word.startswith(f"{group}=")] + [f"{group}={picked}"]
            tree[group] = resolved(words).get(group)
    return words, tree


def widget_key(begin: Start, words: Sequence[str], name: str) -> str:
    """A field keeps what was typed until the choice that it belongs to changes."""
    group = name.partition(".")[0]
    return f"launch-{begin.name}-{next((word for word in words if word.startswith(f'{group}=')), '')}-{name}"


def _choice(words: tuple[str, ...], group: str) -> str | None:
    """Which choice of a group the words come to."""
    tree = _composed(words).get(group)
    return next((choice for choice in composing.choices(group) if _composed((*words, f"{group}={choice}")).get(group) == tree), None)
