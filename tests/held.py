"""Imported by the process that the tests' runs are forked from: a run's first rank goes no further than the step's event, the step's rollout file or the
phase's event that `tests.hold` says."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from workbench.rundir import events, rollouts

HELD = "WORKBENCH_TEST_HOLD"
"""In a rank's environment: the file with what it is held after, `step 3`, `rollouts 3` or `phase` and its message."""

_write, _store = events.EventWriter.write, rollouts.write


def _wait(what: str, step: int = 0, message: str = "") -> None:
    while HELD in os.environ and os.environ.get("RANK") == "0" and _is_last(what, step, message):
        time.sleep(0.02)


def _is_last(what: str, step: int, message: str) -> bool:
    try:
        held, last = Path(os.environ[HELD]).read_text().split(maxsplit=1)
    except FileNotFoundError:
        return False
    return held == what and (message == last if what == "phase" else step >= int(last))


def write(self: events.EventWriter, kind: str, **values: object) -> None:
    _write(self, kind, **values)
    if kind == "step":
        _wait("step", int(str(values["step"])))
    elif kind == "phase":
        _wait("phase", message=str(values["message"]))


def store(run: Any, step: int, *given: Any) -> Path:
    path = _store(run, step, *given)
    _wait("rollouts", step)
    return path


events.EventWriter.write = write
rollouts.write = store
