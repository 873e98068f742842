"""A run in a terminal: a progress bar from its events, and a line for what matters."""

from __future__ import annotations

import time
from collections.abc import Iterator

import typer
from rich.markup import escape
from rich.table import Column

from workbench import api
from workbench.metrics import brief
from workbench.rundir.files import ByteCursor
from workbench.rundir.store import State
from workbench.settings.modules import find_job
from workbench.settings.stored import job, spec_tree
from workbench.terminal.console import Console

out, err = Console(), Console(stderr=True)


def follow(item: api.Run, quiet: bool = False) -> None:
    """A progress bar until the run ends. Exits 1 when it failed."""
    try:
        for line in _watch(item, quiet):
            out.print(line, highlight=False)
    except KeyboardInterrupt:
        err.print(f"\n{item.id} is still running. Follow it: workbench logs -f {item.id}; end it: workbench stop {item.id}", markup=False)
        raise typer.Exit(0) from None
    status = item.status
    if status.state == State.FAILED:
        err.print(f"{item.id} failed", style="red", markup=False)
        err.print(status.message, markup=False, highlight=False)
        raise typer.Exit(1)
    if not quiet:
        out.print(f"{item.id} is {status.state} at step {status.step}/{status.total_steps}", markup=False)


def _watch(item: api.Run, quiet: bool) -> Iterator[str]:
    """Drives the bar from the run's events; yields a line for each validation."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    actor, driver = ByteCursor(), ByteCursor()
    doing = find_job(job(spec_tree(item.dir))).Config.doing or f"{job(spec_tree(item.dir)).removesuffix('e')}ing"
    columns = (
        "{task.description}",
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[metrics]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, disable=quiet, expand=True) as progress:
        bar, working = progress.add_task("starting", total=None, metrics=""), False
        while True:
            ended = item.status.state.ended
            for event in (*item.events(actor), *item.dir.events(driver, role="driver")):
                match event["kind"]:
                    case "phase" if working and not event.get("total"):  # a pause, or its end
                        progress.update(bar, description=escape(event["message"]) or doing)
                    case "phase":
                        progress.update(bar, description=escape(event["message"]), completed=event.get("done", 0), total=event.get("total"))
                    case "state":
                        working = True
                        progress.reset(bar, description=doing, total=event.get("total_steps"), completed=event.get("step", 0), metrics="")
                    case "step":
                        progress.update(bar, completed=event["step"], metrics=brief(event.get("metrics", {})))
                    case "alarm" if not quiet:
                        yield f"[red]alarm[/] {escape(event['name'])} at step {event['step']}: {escape(event['message'])}"
                    case "alarm_over" if not quiet:
                        yield f"[green]over[/] {escape(event['name'])}"
                    case "warning" if not quiet:
                        yield f"[yellow]warning[/] {escape(event['message'])}"
                    case "validation" if not quiet:
                        yield f"step {event['step']:>5}  held out: {brief(event['metrics'])}"
            if ended:
                return
            time.sleep(0.2)
