"""Which runs a notebook reads, and that it launches none, while `workbench notebook verify` executes it."""

from __future__ import annotations

import os
from pathlib import Path

VERIFYING = "WORKBENCH_NOTEBOOK_VERIFY"
"""In the environment of a notebook's kernel: the file that takes the ids of the runs that it reads, one a line."""


class LaunchRefused(ValueError):
    """A notebook that is being verified would launch or change a run."""


def note(run_id: str) -> None:
    """Keep that the notebook reads this run; nothing outside a verification."""
    if file := os.environ.get(VERIFYING):
        with Path(file).open("a") as lines:
            lines.write(f"{run_id}\n")


def noted(file: Path) -> list[str]:
    """The ids in this file, each once, in the order of their first use."""
    return list(dict.fromkeys(file.read_text().split())) if file.exists() else []


def refuse_launch(what: str) -> None:
    """Raises LaunchRefused during a verification. `what` would be launched or changed: `a run with once='demo'`."""
    if VERIFYING in os.environ:
        raise LaunchRefused(f"{what} would be launched, but this is a verification: it reads finished runs only, found by their `once` name or id")
