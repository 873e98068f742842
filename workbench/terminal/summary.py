"""A run in a few values, as `list`, `show` and `--json` tell of it; and what a run that does not train came to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from workbench import api
from workbench.rundir import answers, opening
from workbench.rundir.annotations import MADE_BY
from workbench.rundir.lines import Event
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import NewerFormat
from workbench.settings import stored
from workbench.settings.stored import spec_tree

STATE_COLORS = {"running": "green", "completed": "blue", "failed": "red", "stopped": "yellow", "killed": "magenta", "stopping": "yellow"}
"""The colour of a state in a terminal, as rich calls it."""


def listed(item: api.Run) -> dict[str, Any]:
    """A run's summary; for one whose status cannot be read, because it is damaged or a newer version's, only that, with the cause."""
    try:
        return summary(item)
    except Unreadable as error:
        message = error.reason if isinstance(error, NewerFormat) else f"unreadable: {error}"
        return {"id": item.id, "state": None, "message": message, "path": str(item.dir.path)}


def summary(item: api.Run) -> dict[str, Any]:
    """What a run is and how far it came."""
    status, spec = item.status, spec_tree(item.dir)
    fields = ("message", "attempt", "step", "total_steps", "created", "updated", "format")
    return {
        "id": item.id,
        "name": spec.get("name", item.id),
        "job": stored.job(spec),
        "work": stored.work(spec),
        "algorithm": spec.get("algorithm", {}).get("name", "?"),
        "model": spec.get("model", {}).get("source", "?"),
        "state": str(status.state),
        "path": str(item.dir.path),
        "owner": item.owner,
        "read_only": item.read_only,
        "settings_problem": str(problem) if (problem := stored.problem(item.dir)) else "",
        **{name: getattr(status, name) for name in fields},
    }


def result(item: api.Run) -> dict[str, Any]:
    """What a run that does not train came to, as far as it came: `answers` or `rows`, the path of what it wrote; `validation`, the metrics it measured."""
    kind = stored.job(spec_tree(item.dir))
    if kind == "train":
        return {}
    path = item.dir.path / MADE_BY.get(kind, answers.JSONL)
    measured = [event.get("metrics", {}) for event in readable_events(item) if event["kind"] == "validation"]
    there = path.name in opening.names(path.parent)
    name = "answers" if path.name == answers.JSONL else "rows"
    return {**({name: str(path)} if there else {}), **({"validation": measured[-1]} if measured else {})}


def readable_events(item: api.Run) -> Iterator[Event]:
    """A run's events up to the first that cannot be read, which `problems` names."""
    with contextlib.suppress(Unreadable):
        yield from item.events()
