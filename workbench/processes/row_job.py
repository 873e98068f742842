"""The loop of jobs that add something to every row of a data set: some rows a step, saved at once, continued after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from workbench import metrics as M
from workbench.data.rows import Conversation
from workbench.engine import parallel
from workbench.processes.controls import Controls
from workbench.processes.rank import Rank
from workbench.rewards.waiting import StopRequested
from workbench.rundir import beats
from workbench.rundir.annotations import MADE_BY, StepLines

if TYPE_CHECKING:
    from workbench.engine.batch import Metrics

Made = tuple[Sequence[Mapping[str, object]], "Metrics"]
"""The lines that a step writes, and its metrics."""


def answered(rank: Rank) -> list[Conversation]:
    """All rows of `data.train` with an answer, none held out. Raises ValueError: there is none."""
    whole = rank.spec.data.model_copy(update={"validation": None, "validation_fraction": 0.0})
    rows = [text for text in rank.read(whole, "answered").texts if isinstance(text, Conversation)]
    if not rows:
        raise ValueError(f"data.train={whole.train}: no row is left; `workbench data check --kind answered` tells why")
    return rows


def controls_of(rank: Rank) -> Controls:
    """The requests of a job over rows: it is stopped and paused, and has nothing to change."""
    name = rank.spec.job.name
    return Controls(
        rank, lambda values: rank.warn(f"not changed: {', '.join(values)}; job={name} has no settings that may be changed while it is running")
    )


def over_rows(rank: Rank, count: int, rows_per_step: int, make: Callable[[int, int], Made], controls: Controls | None = None) -> None:
    """Rows `start` to `end` a step by `make`, which all ranks call alike. Rank 0 writes what it gives. `controls` are those that `make` asks while it waits:
    it raises StopRequested where they ask for a stop.
    """
    lines = StepLines(rank.run.path, MADE_BY[rank.spec.job.name])
    total = -(-count // rows_per_step)
    step = parallel.from_first(lines.steps(total) if parallel.rank() == 0 else 0)
    controls = controls or controls_of(rank)
    rank.emit("state", state="running", step=step, total_steps=total)
    beats.moved(step)
    while step < total:
        if controls.stop_requested(step):
            rank.emit("end", reason="stopped", step=step)
            return
        began, start = time.perf_counter(), step * rows_per_step
        end = min(start + rows_per_step, count)
        try:
            made, metrics = make(start, end)
        except StopRequested:
            rank.emit("end", reason="stopped", step=step)
            return
        if parallel.rank() == 0:
            lines.add(made)
        parallel.barrier()
        step += 1
        beats.moved(step)
        seconds = time.perf_counter() - began
        rank.emit("step", step=step, metrics={**metrics, M.SAMPLES_PER_S: (end - start) / seconds, M.STEP_TIME_S: seconds})
    if parallel.rank() == 0:
        lines.finish()
    parallel.barrier()
    rank.emit("end", reason="completed", step=step)
