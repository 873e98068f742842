"""Exporting: a checkpoint as a Hugging Face directory in the run's folder, merged, which transformers loads and a later job names as its model.

export/   the directory (`workbench.processes.exported`); it appears whole or not at all, so a resume writes it or finds it
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from workbench import metrics as M
from workbench.settings.sections import CheckpointJob

if TYPE_CHECKING:
    from workbench.processes.rank import Rank

FOLDER = "export"


class Config(CheckpointJob):
    """Write a checkpoint as a Hugging Face directory, adapters merged; of a policy or of a reward model."""

    sections = ("model", "watch", "backend")
    outputs: ClassVar = {"model": FOLDER}
    most_ranks = 1
    takes_scorers = True
    needs_checkpoint = True

    name: Literal["export"] = "export"
    check: bool = Field(default=False, description="Load the result in transformers and compare its logits with the engine's: `export_difference`.")


def work(rank: Rank) -> None:
    """What a rank of this kind of job does."""
    from workbench.processes import exported
    from workbench.processes.controls import Controls
    from workbench.rundir import beats
    from workbench.rundir.store import RunDir

    job = rank.spec.job
    assert isinstance(job, Config) and job.checkpoint
    began, folder, out = time.perf_counter(), Path(job.checkpoint), rank.run.path / FOLDER
    source = exported.source(RunDir(folder.parents[1]), int(folder.name))
    rank.emit("state", state="running", step=0, total_steps=1)
    beats.moved(0)
    if Controls(rank, lambda values: rank.warn(f"not changed: {', '.join(values)}; an export has no settings that may be changed")).stop_requested(0):
        rank.emit("end", reason="stopped", step=0)
        return
    metrics: dict[str, float] = {}
    if not out.exists() or job.check:
        with beats.doing("loading the checkpoint"):
            rank.emit("phase", message=f"loading the checkpoint of step {source.step}")
            directory = exported.directory_of(source, job.check)
            policy = exported.policy(source, directory)
        if not out.exists():
            with beats.doing("writing the model"):
                rank.emit("phase", message="writing the model")
                _clear(rank.run.path)
                exported.write(source, policy, directory, out)
        if job.check:
            with beats.doing("comparing with transformers"):
                rank.emit("phase", message="comparing with transformers")
                metrics[M.EXPORT_DIFFERENCE] = exported.difference(policy, directory, out, adapter=False)
    beats.moved(1)
    rank.emit("step", step=1, metrics={**metrics, M.STEP_TIME_S: time.perf_counter() - began})
    rank.emit("end", reason="completed", step=1)


def _clear(run: Path) -> None:
    """Take away what an attempt left that was killed while it wrote."""
    for left in run.glob(f".{FOLDER}.*"):
        shutil.rmtree(left)
