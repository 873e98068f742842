"""A run's newest answers: of its rollouts, and to its held-out prompts."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache
from pathlib import Path

from workbench.notebook.widgets import parts
from workbench.rundir import opening, rollouts
from workbench.rundir.opening import Unreadable
from workbench.rundir.rollouts import Query
from workbench.rundir.store import RunDir
from workbench.views import Validation

SHOWN = 4


def newest_answers(run: RunDir, validation: Validation | None) -> str:
    """As HTML, both where there are both."""
    held_out = parts.samples(validation.samples[:SHOWN], validation.step) if validation else ""
    return _newest_rollouts(run) + held_out


def _newest_rollouts(run: RunDir) -> str:
    try:
        changed_ns = opening.stat(rollouts.folder(run)).st_mtime_ns
    except (FileNotFoundError, Unreadable):
        return ""
    step, rows = _rows(run.path, changed_ns)
    return parts.rollouts(rows, step) if rows else ""


@lru_cache(maxsize=64)
def _rows(run: Path, _changed_ns: int) -> tuple[int, list[dict[Hashable, object]]]:
    """The newest step, and some of its rollouts; read once for each change of the folder."""
    folder = RunDir(run)
    steps = rollouts.steps(folder)
    if not steps:
        return 0, []
    frame, _ = rollouts.page(folder, Query(first_step=steps[-1], last_step=steps[-1], sort="rollout", descending=False, limit=SHOWN))
    return steps[-1], [dict(row) for row in frame.to_dict("records")]
