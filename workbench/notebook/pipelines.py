"""`wb.launch_pipeline`, `wb.pipelines`: jobs in sequence, launched and followed from a notebook."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from workbench import api
from workbench.notebook import progress, used_runs
from workbench.notebook.runs import Run
from workbench.rundir.store import State
from workbench.views import pictures, stages, text

if TYPE_CHECKING:
    import pandas as pd


class Pipeline(api.Pipeline):
    """Jobs in sequence: each stage is a run, and its picture is a row a stage.

    >>> demo = wb.pipelines()[0]  # doctest: +SKIP
    >>> demo.wait(), demo["train"].metrics  # doctest: +SKIP
    """

    def __getitem__(self, stage: str) -> Run:
        """A stage's run. Raises KeyError for no such stage, and ValueError while it is not launched."""
        if stage not in self.plan.stages:
            raise KeyError(f"{self.id} has no stage {stage!r}; there are: {', '.join(self.plan.stages)}")
        staged = next(each for each in self.status.stages if each.name == stage)
        if staged.run is None:
            raise ValueError(f"stage {stage} of {self.id} is not launched: {staged.message}")
        return Run(staged.run.dir)

    @property
    def df(self) -> pd.DataFrame:
        """A row a stage: stage, run, state (`waiting` before its turn), steps done and in all, message."""
        import pandas as pd

        rows = [
            {
                "stage": each.name,
                "run": each.run_id,
                "state": "waiting" if each.blocked or each.state is None else str(each.state),
                "step": each.status.step if each.status else 0,
                "total_steps": each.status.total_steps if each.status else 0,
                "message": each.message,
            }
            for each in self.status.stages
        ]
        return pd.DataFrame(rows)

    def wait(self, timeout_s: float | None = None) -> api.PipelineStatus:
        """Block until it has ended, and show how far it is. Interrupting the cell leaves it running. Raises TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s

        def poll() -> tuple[str, float | None] | None:
            status = self.status
            if status.state.ended:
                return None
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"pipeline {self.id} is still {status.state} after {timeout_s} s")
            live = next((each for each in status.stages if each.state and not each.state.ended), None)
            return f"{self.plan.name}: {live.name if live else status.state}, {status.step} of {len(status.stages)} stages", status.step / len(
                status.stages
            )

        progress.follow(poll)
        return self.status

    def __repr__(self) -> str:
        try:
            status = self.status
        except api.Unreadable as error:
            return f"Pipeline({self.id!r}: unreadable: {error})"
        return f"Pipeline({self.id!r}: {status.state}, {status.step} of {len(status.stages)} stages{f', {status.message}' if status.message else ''})"

    def _repr_html_(self) -> str:
        try:
            status = self.status
        except api.Unreadable:
            return pictures.table([{"": repr(self)}])
        head = f"<b>{html.escape(self.plan.name)}</b> {pictures.badge(status.state)} <code>{html.escape(self.id)}</code>"
        return f"{head}{pictures.table([_cells(each) for each in status.stages], self.plan.description)}"


def _cells(stage: api.StageStatus) -> dict[str, object]:
    card = stages.card(stage.run.dir if stage.run else None, stage.status, stage.state, stage.blocked)
    waits = stage.blocked or stage.state is None
    return {
        "stage": stage.name,
        "state": "waiting" if waits else pictures.Html(pictures.badge(stage.state or State.CREATED)),
        "done": card.steps,
        "time": card.time,
        "result": f"{card.label} {card.value}" if card.value else "",
        "run": stage.run_id if stage.run else "",
        "message": stage.message.partition("\n")[0],
    }


class PipelineList(Sequence[Pipeline]):
    """Pipelines, newest first; a picture of them is a table."""

    def __init__(self, pipelines: Sequence[Pipeline]) -> None:
        self._pipelines = list(pipelines)

    @overload
    def __getitem__(self, index: int | str) -> Pipeline: ...
    @overload
    def __getitem__(self, index: slice) -> PipelineList: ...
    def __getitem__(self, index: int | slice | str) -> Pipeline | PipelineList:
        """By number, by a slice, or by the beginning or end of an id."""
        if isinstance(index, slice):
            return PipelineList(self._pipelines[index])
        if isinstance(index, int):
            return self._pipelines[index]
        matching = [each for each in self._pipelines if each.id.startswith(index) or each.id.endswith(index)]
        if len(matching) != 1:
            raise ValueError(f"{len(matching) or 'no'} pipelines match {index!r}: {', '.join(each.id for each in matching or self._pipelines[:5])}")
        return matching[0]

    def __len__(self) -> int:
        return len(self._pipelines)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._pipelines)) or "no pipelines"

    def _repr_html_(self) -> str:
        rows = [{"pipeline": each.id, "is": repr(each).partition(": ")[2].rstrip(")"), "began": text.clock(each.plan.created)} for each in self]
        return pictures.table(rows, f"{len(self)} pipelines" if rows else f"no pipelines in {api.runs_root()}")


def pipelines() -> PipelineList:
    """The pipelines of this folder of runs that can be read, newest first."""
    readable = []
    for each in api.pipelines():
        try:
            _ = each.status, each.plan
        except api.Unreadable:  # `workbench pipeline list` names it with the cause
            continue
        readable.append(Pipeline(each.dir))
    return PipelineList(readable)


def launch_pipeline(name: str, *overrides: str) -> Pipeline:
    """Launch a pipeline and return at once; it continues when this kernel ends.

    Args:
        name: a file of conf/pipeline, or the path of a YAML of your own.
        overrides: as on the command line: `"seed=3"` is for all stages, `"train.algorithm.lr=1e-4"` for one.

    Raises:
        SpecError: a wrong word or setting, with its stage and the nearest there is; nothing was launched.

    >>> wb.launch_pipeline("export_demo", "train.algorithm.max_steps=4")  # doctest: +SKIP
    """
    used_runs.refuse_launch("a pipeline")
    with progress.waiting("launching …"):
        return Pipeline(api.submit_pipeline(name, overrides).dir)
