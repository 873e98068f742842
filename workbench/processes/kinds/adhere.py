"""Measuring adherence: annotated answers with what was requested of them in, `adherence.json` in the run's folder out. It needs no model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from workbench import metrics as M
from workbench.settings import JobConfig

if TYPE_CHECKING:
    from workbench.processes.rank import Rank
    from workbench.rundir.adherence import Adherence


class Config(JobConfig):
    """Compare requested and measured attributes of a file of annotated answers (`data.train`)."""

    sections = ("data", "backend")

    name: Literal["adhere"] = "adhere"
    resamples: int = Field(default=1000, ge=100, le=100_000, description="Of the prompts, for the 95 % intervals.")


def work(rank: Rank) -> None:
    """Rank 0 reads, measures and writes."""
    from workbench.engine import parallel
    from workbench.rundir import adherence as file
    from workbench.rundir import beats
    from workbench.settings.sources import locate
    from workbench.steering import adherence, provenance

    assert isinstance(rank.spec.job, Config)
    rank.emit("state", state="running", step=0, total_steps=1)
    if parallel.rank() == 0:
        path = locate(rank.spec.data.train)
        if path is None:
            raise ValueError(f"data.train={rank.spec.data.train}: expected a file of annotated answers, such as a run's annotated.jsonl")
        with beats.doing("measuring adherence"):
            traced = provenance.trace(path.resolve())
            measured = adherence.measure(adherence.read(path), traced.targets, traced.measured_by, traced.warnings, rank.spec.job.resamples)
            measured.write(rank.run.path / file.FILE)
        for warning in measured.warnings:
            rank.warn(warning)
        rank.emit("step", step=1, metrics=_metrics(measured))
    rank.emit("end", reason="completed", step=1)


def _metrics(measured: Adherence) -> dict[str, float]:
    """Target error and rank correlation by attribute, where they are known."""
    by_name = {M.MAE_OF(each.name): each.error.value for each in measured.attributes}
    by_name |= {M.SPEARMAN_OF(each.name): each.spearman.value for each in measured.attributes}
    return {name: value for name, value in by_name.items() if value is not None}
