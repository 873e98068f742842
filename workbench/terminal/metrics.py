"""`workbench metrics`: every metric that a run may report; and the newest of one run, as `workbench show` prints them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from workbench.metrics import FAMILIES, METRICS, number
from workbench.terminal.console import Console

out = Console()


def metrics(as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False) -> None:
    """Every metric: its name in events and `checkpoint.best_metric`, title, unit, how a step's updates are combined, and what it is."""
    rows = [(str(each), each.heading, each) for each in METRICS.values()]
    for family in FAMILIES:
        member = family("…")
        rows.append((str(member), member.heading, member))
    if as_json:
        fields = ("unit", "group", "averaging", "help")
        print(json.dumps([{"name": name, "title": title, **{field: getattr(each, field) for field in fields}} for name, title, each in rows]))
        return
    table = Table(Column("metric", no_wrap=True), "title", "unit", Column("", style="dim"), box=None, header_style="dim")
    for name, title, each in sorted(rows, key=lambda row: row[2].order):
        table.add_row(*map(escape, (name, title, each.unit, each.help)))
    out.print(table)


def metrics_of_run(steps: Mapping[str, Any], held_out: Mapping[str, Any]) -> Table:
    """The newest values by metric, with what each is; the explanation is truncated where the terminal is narrow."""
    from workbench.views import tables

    columns = {name: values for name, values in (("last step", steps), ("held out", held_out)) if values}
    table = Table(Column("metric", no_wrap=True), *(Column(name, justify="right") for name in columns), "unit", box=None, header_style="dim")
    table.add_column("", style="dim", no_wrap=True, overflow="ellipsis", ratio=1)
    table.expand = True
    for row in tables.measured(steps, held_out):
        explanation = f"{row.title}. {row.help}" if row.help else row.title
        values = [number(each.get(row.name)) for each in columns.values()]
        table.add_row(*map(escape, (row.name, *values, row.unit, explanation)))
    return table
