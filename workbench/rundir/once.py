"""Runs that are launched only once: found by a name of their user's, which lies in their folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.rundir import opening
from workbench.rundir.files import lock
from workbench.rundir.listing import list_runs
from workbench.rundir.store import ONCE, RunDir


def launched(root: Path, once: str) -> RunDir | None:
    """The newest run of this user that was created under this name; None where there is none."""
    own = (run for run in list_runs(root) if not run.read_only)
    return next((run for run in own if ONCE in opening.names(run.path) and opening.read_text(run.path / ONCE) == once), None)


@contextmanager
def one_launcher(root: Path) -> Iterator[None]:
    """Within, no other process of this user looks for a run by its name and launches it."""
    root.mkdir(parents=True, exist_ok=True)
    with lock(root / f".once-{os.geteuid()}.lock"):
        yield
