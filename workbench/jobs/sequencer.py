"""The detached process that launches a pipeline's stages in turn: `python -m workbench.jobs.sequencer PIPELINE_DIR ATTEMPT`.

It starts nothing itself but runs, which live without it, and keeps nothing in memory: another one continues where it was killed. It ends when every stage
is launched, when none can be any more, or when the pipeline is stopped or resumed.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from workbench.backends import forking
from workbench.jobs import plans
from workbench.jobs.sequence import advance
from workbench.processes import WARM, log
from workbench.rundir import opening
from workbench.rundir.pipelines import PipelineDir

POLL_S = 0.5


def run(folder: PipelineDir, attempt: int, poll_s: float = POLL_S) -> None:
    """Launch the stages of this attempt, each when its turn has come, until none is left to be launched."""
    while True:
        with folder.locked():
            if folder.status.attempt != attempt or not advance(folder):
                return
        time.sleep(poll_s)


def main() -> int:
    folder, attempt = PipelineDir(Path(sys.argv[1])), int(sys.argv[2])
    os.umask(0o077)
    os.environ.pop(forking.WARM, None)  # a server of another process's may launch a driver after this one was killed
    with open(folder.path / "logs" / f"driver.{attempt}.log", "ab", opener=opening.opener) as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    log.say(f"launching the stages of {folder.id}, attempt {attempt}")
    plan = plans.read(folder)
    if any(plan.experiment(stage).backend.name == "local" for stage in plan.stages):
        forking.own(WARM)  # which ends with this process, whatever it was asked for
    run(folder, attempt)
    log.say("no stage is left to be launched")
    return 0


if __name__ == "__main__":
    sys.exit(main())
