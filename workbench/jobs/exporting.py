"""An export in a process of its own: whoever asks for it imports no torch, and keeps none of its memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pydantic import BaseModel

from workbench.rundir.permission import changes
from workbench.rundir.store import RunDir

TOLD = 2
"""The exit code with which the standard error is a message for the user."""
MESSAGE_CHARACTERS = 4000


class Question(BaseModel):
    """What to export: as the arguments of `workbench.jobs.export.export`."""

    run: Path
    out: Path
    step: int | None
    adapter: bool
    check: bool


@changes
def export(run: RunDir, out: Path, step: int | None = None, adapter: bool = False, check: bool = False) -> None:
    """As `workbench.jobs.export.export`, in another process.

    Raises:
        ValueError: what that refuses, in its words; or how its process ended.
    """
    question = Question(run=run.path, out=out.resolve(), step=step, adapter=adapter, check=check)
    command = [sys.executable, "-W", "ignore", "-m", "workbench.jobs.export"]
    process = subprocess.run(command, input=question.model_dump_json(), capture_output=True, text=True, check=False, start_new_session=True)
    if process.returncode == TOLD:
        raise ValueError(process.stderr.strip().rpartition("\n")[2][:MESSAGE_CHARACTERS])
    if process.returncode:
        raise ValueError(f"the export of {run.id} ended with code {process.returncode}: {process.stderr.strip()[-MESSAGE_CHARACTERS:]}")
