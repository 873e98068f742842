"""`workbench notebook …`: notebook files, executed without a browser."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from workbench.settings import plain
from workbench.terminal.console import Console

notebook = typer.Typer(help="Execute notebook files, and verify the numbers that they quote.", no_args_is_help=True)
out, err = Console(), Console(stderr=True)

File = Annotated[Path, typer.Argument(help="A notebook, `.ipynb`.")]
Timeout = Annotated[float, typer.Option(min=1, help="Longest execution of one cell, in seconds.")]


@notebook.command()
def run(
    file: File,
    parameters: Annotated[list[str] | None, typer.Argument(help="NAME=value for names of the notebook's parameters cell.")] = None,
    target: Annotated[Path | None, typer.Option("--out", help="The new file; FILE.executed.ipynb beside it without this.")] = None,
    timeout: Timeout = 1800,
) -> None:
    """Execute a notebook from the top into a new file. Ends with the error of the first cell that fails."""
    from workbench.notebook.execution import execute

    values = {}
    for word in parameters or ():
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"expected NAME=value, got {word!r}")
        values[name] = plain.load(value)
    written = target or file.with_suffix(".executed.ipynb")
    with err.status(f"executing {file.name}"):
        execute(file, values, written, timeout_s=timeout)
    out.print(f"{written}: written", markup=False, highlight=False, soft_wrap=True)


@notebook.command()
def verify(file: File, timeout: Timeout = 1800, as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a script.")] = False) -> None:
    """Execute a saved notebook against its finished runs. Ends with 1 where a number that it quotes no longer comes out, or a run is gone."""
    from workbench.notebook.verify import verify as check

    with err.status(f"executing {file.name}"):
        report = check(file, timeout)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        for note in report.notes:
            out.print(f"note: {note}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        for problem in report.problems:
            out.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
        outcome = f"{len(report.problems)} problems" if report.problems else "all come out as they were saved"
        runs = f"of {', '.join(report.runs)}" if report.runs else "of no run"
        out.print(f"{file}: {report.numbers} numbers in {report.cells} cells, {runs}: {outcome}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(bool(report.problems))
