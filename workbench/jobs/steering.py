"""How well a model does what its attributes are set to: what a run measured, or a file of annotated answers measured now."""

from __future__ import annotations

from pathlib import Path

from workbench.rundir import adherence as file
from workbench.rundir import listing, opening
from workbench.rundir.adherence import Adherence
from workbench.steering import adherence as measuring
from workbench.steering import provenance

ROWS = "annotated.jsonl"


def adherence(name: str) -> Adherence:
    """What a run measured (`job=adhere`); or, measured now, the answers that a run annotated (`job=annotate`), or those in a file.

    Args:
        name: a run's id, `latest`, or the path of a file of annotated answers.

    Raises:
        ValueError: no such run or file, or its rows are no annotated answers to requests; Unreadable for a damaged file.
    """
    given = Path(name).expanduser()
    path = given.resolve() if given.is_file() else _of_run(name)
    if path.name == file.FILE:
        return file.read(path)
    traced = provenance.trace(path)
    return measuring.measure(measuring.read(path), traced.targets, traced.measured_by, traced.warnings)


def _of_run(name: str) -> Path:
    run = listing.find(name)
    for wanted in (file.FILE, ROWS):
        if opening.is_file(run.path / wanted):
            return run.path / wanted
    raise ValueError(f"run {run.id} has neither {file.FILE} (job=adhere) nor {ROWS} (job=annotate)")
