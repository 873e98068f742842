"""A run in a few values, as `list`, `show` and `--json` tell of it; and what a run that does not train came to."""

from __future__ import annotations

from typing import Any

from workbench import api
from workbench.rundir import answers
from workbench.rundir.store import NewerFormat
from workbench.settings import stored
from workbench.settings.stored import spec_tree


def listed(item: api.Run) -> dict[str, Any]:
    """A run's summary; for one that a newer version made, whose state this one cannot tell, only that."""
    try:
        return summary(item)
    except NewerFormat as error:
        return {"id": item.id, "state": None, "message": error.reason, "path": str(item.dir.path)}


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
        **{name: getattr(status, name) for name in fields},
    }


def result(item: api.Run) -> dict[str, Any]:
    """What a run that does not train came to, as far as it came: `answers`, the path of its answers; `validation`, the metrics it measured."""
    kind, path = stored.job(spec_tree(item.dir)), item.dir.path / answers.JSONL
    if kind == "train":
        return {}
    measured = [event["metrics"] for event in item.events() if event["kind"] == "validation"]
    return {**({"answers": str(path)} if path.is_file() else {}), **({"validation": measured[-1]} if measured else {})}
