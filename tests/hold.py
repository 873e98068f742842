"""A run that stands still after a step, for what is done to it there: a test need not be quicker than the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.held import HELD
from tests.waiting import until, until_step
from workbench import api
from workbench.rundir import rollouts
from workbench.rundir.files import write_atomic


class Hold:
    """Of the runs that are launched from now on: their first rank goes no further than a step's event, its rollout file, or a phase's event (`tests.held`)."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self._path = folder / "held"
        folder.mkdir()
        monkeypatch.setenv(HELD, str(self._path))

    def at(self, step: int) -> None:
        write_atomic(self._path, f"step {step}")

    def at_rollouts(self, step: int) -> None:
        write_atomic(self._path, f"rollouts {step}")

    def at_phase(self, message: str) -> None:
        """Go no further than the first event of the phase with this message, before the first step."""
        write_atomic(self._path, f"phase {message}")

    def wait(self, run: api.Run) -> None:
        """Until the run stands at the step."""
        what, step = self._path.read_text().split()
        if what == "step":
            until_step(run, int(step))
        else:
            until(lambda: int(step) in rollouts.steps(run.dir), run=run)

    def release(self) -> None:
        self._path.unlink()
