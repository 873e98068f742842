"""Imported by the process that the tests' runs are forked from: a run's first rank goes no further than the event of the step that `tests.hold` says."""

from __future__ import annotations

import os
import time
from pathlib import Path

from workbench.rundir import events

HELD = "WORKBENCH_TEST_HOLD"
"""In a rank's environment: the file with the step."""

_write = events.EventWriter.write


def _last() -> float:
    try:
        return int(Path(os.environ[HELD]).read_text())
    except FileNotFoundError:
        return float("inf")


def write(self: events.EventWriter, kind: str, **values: object) -> None:
    _write(self, kind, **values)
    if kind == "step" and HELD in os.environ and os.environ.get("RANK") == "0":
        while int(str(values["step"])) >= _last():
            time.sleep(0.02)


events.EventWriter.write = write
