"""`workbench model get`: a model on this machine before the first run needs it."""

from __future__ import annotations

from typing import Annotated

import typer

from workbench.settings.sources import EMBEDDED
from workbench.terminal.console import Console

model = typer.Typer(help="Models on this machine.", no_args_is_help=True)
out = Console()


@model.callback()
def _group() -> None:
    """Models on this machine."""


@model.command("get")
def get(
    name: Annotated[str, typer.Argument(help="A Hugging Face id, a directory or a .gguf file, as model.source takes it.")] = EMBEDDED,
    revision: Annotated[str | None, typer.Option(help="Of a hub model: the branch, tag or commit, as model.revision takes it.")] = None,
) -> None:
    """Download a model and convert it into the cache, so that no run waits for it. What is there already is not fetched again."""
    from workbench.jobs import model as models

    converted = models.get(name, lambda line: out.print(line, markup=False, highlight=False, soft_wrap=True), revision)
    out.print(f"{name}: {converted.megabytes:,.0f} MB in {converted.directory}", markup=False, highlight=False, soft_wrap=True)
