"""Looking at data before a run is launched on it, in a process that loads the tokenizer in the caller's place."""

from __future__ import annotations

import subprocess
import sys

from workbench.data.check import CheckReport, Page
from workbench.data.readers import Kind
from workbench.processes.check_data import Question
from workbench.rundir.permission import changes


@changes
def check_data(source: str, kind: Kind, format: str = "auto", model: str = "smollm2-135m-instruct", max_length: int = 1024) -> CheckReport:
    """What there is to know of a source's rows as training would see them.

    Raises:
        ValueError: there is no such source, not one good row in it, or no such model.
    """
    return CheckReport.model_validate_json(_ask(Question(source=source, kind=kind, format=format, model=model, max_length=max_length)))


@changes
def browse_data(source: str, kind: Kind, offset: int, count: int, format: str = "auto", model: str = "smollm2-135m-instruct") -> Page:
    """Some good rows of a source as training sees them. Raises ValueError as `check_data` does."""
    return Page.model_validate_json(_ask(Question(source=source, kind=kind, format=format, model=model, rows=(offset, count))))


def _ask(question: Question) -> str:
    command = [sys.executable, "-m", "workbench.processes.check_data"]
    done = subprocess.run(command, input=question.model_dump_json(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr.strip() or f"the check exited with {done.returncode}")
    return done.stdout
