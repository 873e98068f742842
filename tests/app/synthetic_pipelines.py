"""Folders of pipelines that look like real ones, with the runs of their stages, made in no time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.app import synthetic
from workbench.jobs import plans
from workbench.rundir import pipelines
from workbench.rundir.files import write_once
from workbench.rundir.pipelines import PipelineDir
from workbench.rundir.store import STAGE, RunDir, State

EXPORT_DEMO = ("train", "export", "answers")


def make(root: Path, stages: Sequence[dict[str, Any] | None], name: str = "export_demo", words: Sequence[str] = (), **changes: Any) -> PipelineDir:
    """A pipeline whose first stages have runs: of each the arguments of `synthetic.make`; None for one that is not launched. `root` is WORKBENCH_RUNS."""
    plan = plans.plan(name, words)
    folder = pipelines.create(
        root, f"{time.strftime('%Y%m%d-%H%M%S')}-{name.replace('_', '-')}-{len(pipelines.list_pipelines(root)):04x}", plan.to_yaml()
    )
    for (stage, planned), made in zip(plan.stages.items(), stages, strict=True):
        if made is not None:
            run = synthetic.make(root, f"{name} {stage}", **made)
            write_once(run.path / STAGE, pipelines.mark(folder.id, stage))
            spec = run.path / "spec.yaml"
            spec.unlink()
            write_once(spec, plan.experiment(stage).to_yaml())
            run.path.rename(root / planned.run)
    with folder.locked():
        folder.update(**changes)
    return folder


def failed(root: Path) -> PipelineDir:
    """The export failed after a training."""
    done = {"steps": 25, "total": 25, "state": State.COMPLETED, "age_s": 900}
    broken = {"steps": 0, "total": 1, "state": State.FAILED, "message": "rank 0 was killed by SIGKILL (out of memory?)", "age_s": 40}
    return make(root, [done, broken, None])


def complete(root: Path) -> PipelineDir:
    """Every stage is complete."""
    return make(root, [{"steps": 25, "total": 25, "state": State.COMPLETED, "age_s": 900 - 300 * number} for number in range(3)])


def run_of(folder: PipelineDir, stage: str) -> RunDir:
    return RunDir(folder.runs / plans.read(folder).stages[stage].run)
