"""A run that stands still after a step, for what is done to it there: a test need not be quicker than the run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.waiting import until_step
from workbench import api
from workbench.rundir.files import write_atomic

SITE = """
import os, time
from pathlib import Path

held = Path(os.environ["WORKBENCH_TEST_HOLD"])
if os.environ.get("RANK") == "0":
    from workbench.rundir import events

    def last() -> float:
        try:
            return int(held.read_text())
        except FileNotFoundError:
            return float("inf")

    def write(self, kind, **values):
        original(self, kind, **values)
        while kind == "step" and values["step"] >= last():
            time.sleep(0.02)

    original, events.EventWriter.write = events.EventWriter.write, write
"""


class Hold:
    """Of the runs that are launched from now on: their first rank goes no further than a step's event. Python itself loads what does that."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self._path = folder / "held"
        site = folder / "site"
        site.mkdir(parents=True)
        (site / "sitecustomize.py").write_text(SITE)
        monkeypatch.setenv("WORKBENCH_TEST_HOLD", str(self._path))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))

    def at(self, step: int) -> None:
        write_atomic(self._path, str(step))

    def wait(self, run: api.Run) -> None:
        """Until the run stands at the step."""
        until_step(run, int(self._path.read_text()))

    def release(self) -> None:
        self._path.unlink()
