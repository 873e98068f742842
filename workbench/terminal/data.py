"""`workbench data check`: a data set before it is trained on."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from workbench import api
from workbench.data.changes import Changes, as_columns
from workbench.data.formats import Pairs
from workbench.data.limits import Limits
from workbench.data.readers import Kind
from workbench.terminal.console import Console

data = typer.Typer(help="Look at data before training on it.", no_args_is_help=True)
out = Console()


@data.callback()
def main() -> None:
    """Look at data before training on it."""


@data.command()
def check(
    source: Annotated[str, typer.Argument(help="A .jsonl, .jsonl.gz or .parquet file, or a Hugging Face dataset id.")],
    kind: Annotated[Kind, typer.Option(help="What an algorithm would read it as.")] = "preference",
    format_: Annotated[str, typer.Option("--format", help="The rows' schema; auto tells it from the first row.")] = "auto",
    model: Annotated[str, typer.Option(help="Whose tokenizer and chat template to use.")] = "smollm2-135m-instruct",
    max_length: Annotated[int, typer.Option(min=8, help="Longest row in tokens.")] = 1024,
    rows: Annotated[str | None, typer.Option(help="OFFSET:COUNT, to page through the rows with their loss mask.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Longest check in seconds.")] = api.CHECK_TIMEOUT_S,
    memory: Annotated[float | None, typer.Option(min=1, help="GiB of memory that the check may take; half of the machine's without it.")] = None,
    max_expansion: Annotated[int, typer.Option(min=1, help="As data.max_expansion.")] = Limits.expansion,
    columns: Annotated[str, typer.Option(help="As data.columns: '{prompt: query, label: null}'.")] = "{}",
    map_: Annotated[str | None, typer.Option("--map", help="As data.map: path/to/file.py:function.")] = None,
    pairs: Annotated[Pairs, typer.Option(help="As data.pairs.")] = "extremes",
    template_kwargs: Annotated[str, typer.Option(help="As data.template_kwargs: '{enable_thinking: false}'.")] = "{}",
    on_bad_row: Annotated[Literal["error", "skip"], typer.Option(help="As data.on_bad_row.")] = "error",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False,
) -> None:
    """Count, measure and show a data set's rows as training would see them. Exit code 1 where a run would refuse them."""
    from workbench.data.check import render

    limits, changes = Limits(expansion=max_expansion), Changes(as_columns(columns), map_, pairs)
    variables = api.as_template_kwargs(template_kwargs)
    if rows is not None:
        offset, _, count = rows.partition(":")
        if not (offset.isdigit() and count.isdigit()):
            raise ValueError(f"--rows {rows}: expected OFFSET:COUNT, such as 0:20")
        page = api.browse_data(
            source, kind, int(offset), int(count), format_, model, limits, timeout, memory, changes=changes, template_kwargs=variables
        )
        print(page.model_dump_json(indent=None if as_json else 2))
        return
    asked = (source, kind, format_, model, max_length, limits, timeout, memory)
    report = api.check_data(*asked, changes=changes, on_bad_row=on_bad_row, template_kwargs=variables)
    if as_json:
        print(report.model_dump_json())
    else:
        render(report, out)
    raise typer.Exit(int(bool(report.refused)))
