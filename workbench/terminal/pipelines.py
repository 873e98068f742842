"""Pipelines in a terminal: `workbench run pipeline=…`, and `workbench pipeline list|show|stop|resume`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from workbench import api
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import State
from workbench.terminal.console import Console
from workbench.terminal.follow import follow as follow_run
from workbench.terminal.summary import STATE_COLORS, result
from workbench.views.text import clock

WORD = "pipeline="
POLL_S = 0.3
out, err = Console(), Console(stderr=True)
pipeline = typer.Typer(help="Jobs in sequence, launched with `workbench run pipeline=NAME`: each stage is a run.", no_args_is_help=True)

PipelineId = Annotated[str, typer.Argument(metavar="PIPELINE", help="A pipeline's id, the beginning or end of one, or `latest`.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
Follow = Annotated[
    bool, typer.Option("--follow/--detach", help="Show the progress to the end, or return at once; the pipeline continues either way.")
]


def named(overrides: Sequence[str]) -> tuple[str, list[str]] | None:
    """The pipeline that the words of `workbench run` name, and the other words; None where they name none. Raises ValueError for two."""
    names = [word.removeprefix(WORD) for word in overrides if word.startswith(WORD)]
    if len(names) > 1:
        raise ValueError(f"one pipeline at a time: got {' and '.join(names)}")
    return (names[0], [word for word in overrides if not word.startswith(WORD)]) if names else None


def run(name: str, overrides: Sequence[str], follow: bool, dry_run: bool, as_json: bool) -> None:
    """Launch a pipeline and follow it to its end."""
    if dry_run:
        for stage in api.compose_pipeline(name, overrides):
            print(f"# stage {stage.name}" + (f", after {', '.join(stage.needs)}" if stage.needs else ""))
            print(stage.experiment.to_yaml())
        return
    launched = api.submit_pipeline(name, overrides)
    if as_json:
        print(json.dumps(summary(launched)))
    else:
        out.print(f"[bold]{escape(launched.id)}[/]  {escape(str(launched.dir.path))}", highlight=False, soft_wrap=True)
        for stage in launched.status.stages:
            out.print(f"  {stage.name}  {stage.run_id}", markup=False, highlight=False, soft_wrap=True)
    if follow:
        follow_to_end(launched, quiet=as_json)


def follow_to_end(item: api.Pipeline, quiet: bool = False) -> None:
    """The progress of each stage in turn. Exits 1 when one failed."""
    try:
        for name in item.plan.stages:
            stage = _begun(item, name)
            if stage is None or stage.run is None:
                continue
            if not quiet:
                out.print(f"[bold]{escape(name)}[/]  {escape(stage.run_id)}", highlight=False, soft_wrap=True)
            try:
                follow_run(stage.run, quiet)
            except typer.Exit as end:
                if end.exit_code:
                    break
                raise
            for kind, path in result(stage.run).items():
                if not quiet and isinstance(path, str):
                    out.print(f"{kind}: {path}", markup=False, highlight=False, soft_wrap=True)
        status = item.wait()
    except KeyboardInterrupt:
        err.print(f"\n{item.id} continues. Follow it: workbench pipeline show {item.id}; end it: workbench pipeline stop {item.id}", markup=False)
        raise typer.Exit(0) from None
    if status.state == State.COMPLETED:
        if not quiet:
            out.print(f"{item.id} is completed: {status.step} of {len(status.stages)} stages", markup=False, highlight=False)
        return
    err.print(f"{item.id} is {status.state}: {status.message}", style="red", markup=False, highlight=False, soft_wrap=True)
    err.print(f"continue it: workbench pipeline resume {item.id}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(1)


def _begun(item: api.Pipeline, name: str) -> api.StageStatus | None:
    """The stage when its run is there; None where the pipeline ended without it."""
    while True:
        status = item.status
        stage = next(each for each in status.stages if each.name == name)
        if stage.status is not None and not stage.blocked:
            return stage
        if status.state.ended or stage.blocked:
            return None
        time.sleep(POLL_S)


def summary(item: api.Pipeline) -> dict[str, Any]:
    """What a pipeline is and how far it came."""
    try:
        status, plan = item.status, item.plan
    except Unreadable as error:
        return {"id": item.id, "state": None, "message": f"unreadable: {error}", "path": str(item.dir.path)}
    stages = [
        {
            "name": stage.name,
            "run": stage.run_id,
            "needs": list(stage.needs),
            "state": stage.state and str(stage.state),
            "step": stage.status.step if stage.status else 0,
            "total_steps": stage.status.total_steps if stage.status else 0,
            "message": stage.message,
        }
        for stage in status.stages
    ]
    fields = {"state": str(status.state), "message": status.message, "attempt": status.attempt, "created": status.created, "stages": stages}
    return {"id": item.id, "name": plan.name, "description": plan.description, "path": str(item.dir.path), "owner": item.owner, **fields}


@pipeline.command("list")
def list_(as_json: Json = False) -> None:
    """Every pipeline, newest first."""
    rows = [summary(item) for item in api.pipelines()]
    if as_json:
        print(json.dumps(rows))
        return
    if not rows:
        out.print(f"There are no pipelines in {api.runs_root()}. Start one: workbench run pipeline=export_demo", markup=False, soft_wrap=True)
        return
    table = Table(Column("pipeline", overflow="fold"), "state", "stages", "started", box=None, header_style="dim")
    table.add_column("message", no_wrap=True, overflow="ellipsis", ratio=1)
    table.expand = True
    for row in rows:
        if row["state"] is None:
            table.add_row(escape(row["id"]), "", "", "", escape(row["message"]))
            continue
        done = sum(stage["state"] == State.COMPLETED for stage in row["stages"])
        table.add_row(escape(row["id"]), _coloured(row["state"]), f"{done}/{len(row['stages'])}", clock(row["created"]), escape(row["message"]))
    out.print(table)


@pipeline.command()
def show(pipeline_id: PipelineId, as_json: Json = False) -> None:
    """One pipeline: the state and progress of each stage, and the id of its run."""
    item = api.pipeline(pipeline_id)
    if as_json:
        print(json.dumps(summary(item)))
        return
    status = item.status
    out.print(f"[bold]{escape(item.id)}[/]  {_coloured(status.state)}  {escape(str(item.dir.path))}", highlight=False, soft_wrap=True)
    for line in filter(None, (item.plan.description, status.message)):
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    table = Table("stage", "state", "step", Column("run", overflow="fold"), box=None, header_style="dim")
    table.add_column("message", no_wrap=True, overflow="ellipsis", ratio=1)
    table.expand = True
    for stage in status.stages:
        step = f"{stage.status.step}/{stage.status.total_steps or '?'}" if stage.status else ""
        state = "waiting" if stage.blocked or stage.state is None else _coloured(stage.state)
        table.add_row(escape(stage.name), state, step, stage.run_id if stage.run else "", escape(stage.message.partition("\n")[0]))
    out.print(table)


@pipeline.command()
def stop(pipeline_id: PipelineId) -> None:
    """Launch no further stage; those that run save a checkpoint and end at their next step."""
    item = api.pipeline(pipeline_id)
    item.stop()
    out.print(f"{item.id} stops; `workbench pipeline resume {item.id}` continues from there", markup=False)


@pipeline.command()
def resume(pipeline_id: PipelineId, follow: Follow = True) -> None:
    """Continue at the stage that failed or was stopped, from its latest valid checkpoint; the later stages follow."""
    item = api.pipeline(pipeline_id)
    item.resume()
    out.print(f"[bold]{escape(item.id)}[/]  attempt {item.status.attempt}")
    if follow:
        follow_to_end(item)


def _coloured(state: str) -> str:
    return f"[{STATE_COLORS.get(State(state), 'default')}]{state}[/]"
