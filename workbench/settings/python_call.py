"""A tree of settings as the Python that launches it in a notebook."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from workbench.settings import command_line, spec
from workbench.settings.upgrade import Tree

WIDTH = 88
NAMED = ("job", "algorithm", "backend")
"""Sections that hold the name of their choice."""


def python_call(overrides: Sequence[str], tree: Tree) -> str:
    """`wb.launch(wb.Experiment(…))`: the experiment, the choices, and what differs from them of the sections that the job reads.

    Settings of the choices that the tree has not cannot be said so: then the arguments of the command line are composed.
    """
    if command_line.removed(overrides, command_line.read_by_its_job(tree)):
        arguments = "".join(f"    {_literal(word)},\n" for word in command_line.all_words(overrides, tree))
        return f"from workbench import api\n\nwb.launch(api.compose([\n{arguments}]))"
    arguments = _arguments(overrides, tree)
    short = f"wb.launch(wb.Experiment({', '.join(arguments)}))"
    if len(short) <= WIDTH:
        return short
    return "wb.launch(\n    wb.Experiment(\n" + "".join(f"        {argument},\n" for argument in arguments) + "    )\n)"


def _arguments(overrides: Sequence[str], tree: Tree) -> list[str]:
    choices = dict(word.split("=", 1) for word in overrides)
    changed = _changes(overrides, tree)
    if spelled_out := {group for group in choices.keys() & changed.keys() if group not in NAMED}:
        return _arguments([word for word in overrides if word.partition("=")[0] not in spelled_out], tree)
    experiment = choices.pop("experiment", None)
    settings: dict[str, object] = dict(choices)
    for section, values in changed.items():
        chosen = {"name": choices[section]} if section in choices else {}
        settings[section] = {**chosen, **values} if isinstance(values, Mapping) else values
    return [*([_literal(experiment)] if experiment else []), *(f"{name}={_literal(value)}" for name, value in settings.items())]


def _changes(overrides: Sequence[str], tree: Tree) -> dict[str, object]:
    return _difference(spec.filled(command_line.composed(tuple(overrides))), command_line.read_by_its_job(tree))


def _difference(was: Tree, now: Tree) -> dict[str, object]:
    """What `now` has that `was` has not, or otherwise."""
    return {
        key: _difference(was[key], value) if isinstance(value, dict) and isinstance(was.get(key), dict) else value
        for key, value in now.items()
        if key not in was or _plain(was[key]) != _plain(value)
    }


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _literal(value: object) -> str:
    """A value as Python is written, texts in double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)
