"""Which runs a notebook reads, and that it launches none, while `workbench notebook verify` executes it."""

from __future__ import annotations

import os
from pathlib import Path

VERIFYING = "WORKBENCH_NOTEBOOK_VERIFY"
"""In the environment of a notebook's kernel: the file that takes the ids of the runs that it reads, one a line."""


class NotVerifiable(ValueError):
    """A notebook that is being verified would launch a run, or names one by what may be another run tomorrow."""


def note(run_id: str) -> None:
    """Keep that the notebook reads this run; nothing outside a verification."""
    if file := os.environ.get(VERIFYING):
        with Path(file).open("a") as lines:
            lines.write(f"{run_id}\n")


def noted(file: Path) -> list[str]:
    """The ids in this file, each once, in the order of their first use."""
    return list(dict.fromkeys(file.read_text().split())) if file.exists() else []


def refuse_launch(what: str) -> None:
    """Raises NotVerifiable during a verification. `what` would be launched: `a run with once='demo'`."""
    if VERIFYING in os.environ:
        raise NotVerifiable(f"{what} would be launched, but a verification reads finished runs only, found by their `once` name or id")


def refuse_latest(run_id: str) -> None:
    """Raises NotVerifiable during a verification where the run is asked for as `latest`."""
    if VERIFYING in os.environ and run_id == "latest":
        raise NotVerifiable("which run is `latest` changes with every launch; name it by its id, or launch it with `once`")
