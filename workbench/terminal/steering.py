"""`workbench adherence`: whether answers are what their attributes were set to, as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Group
from rich.markup import escape
from rich.table import Column, Table

from workbench import api
from workbench.rundir.adherence import Adherence, Estimate
from workbench.terminal.console import Console

out, err = Console(), Console(stderr=True)


def adherence(
    source: Annotated[
        str, typer.Argument(metavar="RUN", help="A run that measured or annotated answers (id, `latest`), or a file of annotated answers.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False,
) -> None:
    """Requested against measured attributes: achieved ratings, target error, rank correlation, and leakage into other attributes."""
    measured = api.adherence(source)
    if as_json:
        print(json.dumps(asdict(measured)))
        return
    out.print(Group(*tables(measured)))
    for warning in measured.warnings:
        err.print(f"[yellow]warning[/] {escape(warning)}", highlight=False, soft_wrap=True)


def tables(measured: Adherence) -> Iterator[Table]:
    """What the levels achieved, how well the attributes do what they are set to, and what each moves."""
    yield _achieved(measured)
    own = Table("attribute", "measured by", *_numbers("rows", "target error", "bias", "Spearman"), box=None, header_style="dim")
    for each in measured.attributes:
        by = measured.measured_by.get(each.name, "not known")
        own.add_row(escape(each.name), escape(by), str(each.rows), *(_shown(value) for value in (each.error, each.bias, each.spearman)))
    yield own
    names = list(dict.fromkeys(name for row in measured.leakage.values() for name in row))
    leakage = Table("requested", *_numbers(*(f"measured {escape(name)}" for name in names)), box=None, header_style="dim")
    leakage.title, leakage.title_justify = "partial correlation, given the other requests (in brackets: of the training rows' ratings)", "left"
    for a, row in measured.leakage.items():
        given = measured.correlation.get(a, {})
        leakage.add_row(escape(a), *(_with_data(row[b], given.get(b), a == b) for b in names))
    yield leakage


def _achieved(measured: Adherence) -> Table:
    levels = sorted({level.requested for each in measured.attributes for level in each.levels})
    table = Table("achieved at requested", *_numbers(*(f"{level:g}" for level in levels)), box=None, header_style="dim")
    for each in measured.attributes:
        by_level = {level.requested: level for level in each.levels}
        table.add_row(escape(each.name), *(_shown(by_level[x].achieved) if x in by_level else "" for x in levels))
        table.add_row(
            "  words", *(f"{value:.1f}" if x in by_level and (value := by_level[x].words.value) is not None else "" for x in levels), style="dim"
        )
    return table


def _numbers(*titles: str) -> list[Column]:
    return [Column(title, justify="right") for title in titles]


def _shown(estimate: Estimate) -> str:
    return escape(str(estimate))


def _with_data(estimate: Estimate, given: float | None, own: bool) -> str:
    value = "–" if estimate.value is None else f"{estimate.value:.2f}"
    return f"[bold]{value}[/]" if own else f"{value} ({given:.2f})" if given is not None else value
