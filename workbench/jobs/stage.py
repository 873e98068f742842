"""The driver of a pipeline's stage: `python -m workbench.jobs.stage RUN_DIR`. It is a run's driver that first looks whether the stages before are complete.

A stage may be queued before those that it needs have ended: then only its start tells which checkpoint it is on. Its exit code is 0 only where the run is
complete: a scheduler starts what waits for it then, and not where it was stopped.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from workbench.jobs import inputs, plans
from workbench.jobs.checkpoints import with_checkpoint
from workbench.jobs.observe import observed_status
from workbench.processes import driver
from workbench.rundir import pipelines
from workbench.rundir.store import LIVE, RunDir, State
from workbench.settings import stored
from workbench.settings.composing import SpecError

INCOMPLETE = 3
"""The exit code of a stage that ended and is not complete."""


def incomplete(run: RunDir) -> str:
    """Which of the stages that a run needs are not complete; empty where all are. Raises Unreadable where its pipeline cannot be read."""
    folder, stage = pipelines.pipeline_of(run), pipelines.stage_of(run)
    if folder is None or stage is None:
        return ""
    plan = plans.read(folder)
    for need in plan.stages[stage[1]].needs:
        state = observed_status(RunDir(run.path.parent / plan.stages[need].run)).state
        if state != State.COMPLETED:
            return waits_for(need, state)
    return ""


def waits_for(stage: str, state: State | None) -> str:
    """Why a stage does not start."""
    ended = {State.FAILED: "which failed", State.STOPPED: "which was stopped", State.KILLED: "which was killed"}
    how = ended.get(state) if state else None
    return f"waits for {stage}" + (f", {how}" if how else "")


def settle(run: RunDir) -> None:
    """With the checkpoint that is there now in the settings, where they name a run's: from this attempt on the stage is on that one.

    Raises:
        SpecError: there is no checkpoint, or it is not what the stage needs.
    """
    experiment = stored.experiment(run)
    settled = with_checkpoint(experiment)
    if settled != experiment:
        run.change_spec(run.status.attempt, settled.to_yaml())
        inputs.keep(run, settled)


def main() -> int:
    run = RunDir(Path(sys.argv[1]))
    if why := incomplete(run):
        run.move(LIVE, state=State.STOPPED, message=why)
        return INCOMPLETE
    try:
        settle(run)
    except SpecError as error:
        run.move(LIVE, state=State.FAILED, message=str(error))
        return 1
    code = driver.main()
    return code or (0 if run.status.state == State.COMPLETED else INCOMPLETE)


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
