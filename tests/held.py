"""Imported by the process that the tests' runs are forked from: a run's first rank goes no further than the event of the step, or of the phase, that `tests.hold` says."""

from __future__ import annotations

import os
import time
from pathlib import Path

from workbench.rundir import events

HELD = "WORKBENCH_TEST_HOLD"
"""In a rank's environment: the file with the step, or the phase's message."""

_write = events.EventWriter.write


def _held(kind: str, values: dict[str, object]) -> bool:
    """Whether the run stands still after this event."""
    try:
        where = Path(os.environ[HELD]).read_text()
    except FileNotFoundError:
        return False
    if kind == "phase":
        return values["message"] == where
    return kind == "step" and where.isdigit() and int(str(values["step"])) >= int(where)


def write(self: events.EventWriter, kind: str, **values: object) -> None:
    _write(self, kind, **values)
    if HELD in os.environ and os.environ.get("RANK") == "0":
        while _held(kind, values):
            time.sleep(0.02)


events.EventWriter.write = write
