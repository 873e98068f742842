"""`workbench cluster` and `workbench preflight`: what the Cluster page and the Launch form show, in a terminal."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from workbench import api
from workbench.terminal.console import Console
from workbench.views import machines as views
from workbench.views import text

MARKS = {"ok": "[green]●[/]", "warning": "[yellow]●[/]", "error": "[red]●[/]"}
TONES = {"idle": "green", "part": "cyan", "full": "blue", "down": "red"}
out = Console()


def cluster(
    here: Annotated[bool, typer.Option("--here", help="This machine, also where there is a SLURM.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep refreshing, until Ctrl-C.")] = False,
    every_s: Annotated[float, typer.Option("--every", min=0.5, help="Seconds between two looks of --watch.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script; with --watch a line each time.")] = False,
) -> None:
    """Nodes, partitions, queue, and what each process of my runs uses; of this machine where there is no SLURM."""

    def look() -> api.Cluster:
        return api.cluster("local" if here else None)

    def show(snapshot: api.Cluster) -> None:
        if as_json:
            print(json.dumps(asdict(snapshot)), flush=True)
        else:
            out.print(render(snapshot))

    if not watch:
        show(look())
        return
    with contextlib.suppress(KeyboardInterrupt):
        if as_json or not out.is_terminal:
            while True:
                show(look())
                time.sleep(every_s)
        with Live(render(look()), console=out, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(every_s)
                live.update(render(look()), refresh=True)


def preflight(
    overrides: Annotated[list[str] | None, typer.Argument(help="As for `workbench run`.")] = None,
    on_node: Annotated[
        bool, typer.Option("--on-node", help="Also start Python on one of the nodes: it waits in the queue for a node and a minute.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False,
) -> None:
    """What would keep a run from starting, told before it is submitted. Exits with 1 where something would."""
    problems = api.preflight(api.compose(overrides or []), on_node)
    if as_json:
        print(json.dumps([asdict(each) for each in problems]))
    else:
        table = Table("", "check", "told", box=None, show_header=False)
        for each in problems:
            table.add_row(MARKS[each.level], escape(each.name), escape(each.message))
        out.print(table)
    if any(each.level == "error" for each in problems):
        raise typer.Exit(1)


def render(cluster: api.Cluster) -> RenderableType:
    """All of it as tables; those that have no row are left out."""
    survey = cluster.survey
    title = survey.title if survey.backend == "slurm" or not survey.nodes else f"{survey.nodes[0].name}: {views.each_has(survey.nodes)}"
    parts: list[RenderableType] = [Text.from_markup(f"[bold]{escape(title)}[/]  [dim]{text.clock(survey.time)}[/]")]
    if survey.error:
        parts.append(Text(survey.error, style="red"))
    parts.append(Text("   ".join(f"{each.label} {each.value}" + (f" ({each.note})" if each.note else "") for each in views.headline(cluster))))
    nodes = views.nodes(cluster)
    for row, node in zip(nodes, survey.nodes, strict=True):
        row["State"] = f"[{TONES[views.kind(node)]}]{escape(str(row['State']))}[/]"
    if survey.backend == "slurm":
        parts += [_table("nodes", nodes, markup=("State",)), _table("partitions", views.partitions(cluster)), _table("queue", views.queue(cluster))]
    else:
        rows = [{"GPU": each.label, "": each.caption} for node in survey.nodes for each in views.devices(node)]
        parts.append(_table("GPUs", rows))
    for run in cluster.allocations:
        head = f"[bold]{escape(run.run_id)}[/]  {run.state}" + (f"  job {escape(run.job_id)}" if run.backend == "slurm" else "")
        parts += [Text(""), Text.from_markup(f"{head}  [dim]{escape(views.totals(run))}[/]"), _table("", views.ranks(run))]
    if not cluster.allocations:
        parts += [Text(""), Text(f"No run of {api.runs_root()} is running.", style="dim")]
    return Group(*(part for part in parts if not (isinstance(part, Table) and not part.row_count)))


def _table(title: str, rows: Sequence[Mapping[str, object]], markup: Sequence[str] = ()) -> Table:
    """Columns that have a value somewhere, numbers to the right."""
    table = Table(title=f"\n{title}" if title else None, title_justify="left", title_style="dim", box=None, header_style="dim", padding=(0, 2, 0, 0))
    names = [name for name in (rows[0] if rows else ()) if any(row[name] not in (None, "") for row in rows)]
    for name in names:
        numbers = any(isinstance(row[name], int | float) for row in rows)
        table.add_column(UNITS.get(name, name) if numbers else name, justify="right" if numbers else "left", overflow="fold", no_wrap=name in WHOLE)
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) if name in markup else escape(str(row[name])) for name in names))
    return table


WHOLE = ("Node", "Job", "User", "State", "Nodes", "Process")
"""Columns that are not broken, however narrow the terminal."""
UNITS = {"Memory": "Memory, GiB", "GPU memory": "GPU memory, GiB", "GPU": "GPU, %"}
