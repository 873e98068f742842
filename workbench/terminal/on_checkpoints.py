"""`workbench evaluate`, `workbench generate` and `workbench annotate`: jobs on weights that are there; and how a run is followed to what it came to."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape

from workbench import api
from workbench.terminal.console import Console
from workbench.terminal.follow import follow as follow_to_end
from workbench.terminal.metrics import metrics_of_run
from workbench.terminal.summary import result, summary

out = Console()
Follow = Annotated[bool, typer.Option("--follow/--detach", help="Show the progress to the end, or return at once; the run continues either way.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script: when the run has ended, with what it came to.")]


def evaluate(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id, the beginning or end of one, or `latest`.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value of data, validation, backend and layout, as in `data.validation=more.jsonl`.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="Which checkpoint; the newest without it.")] = None,
    follow: Follow = True,
    as_json: Json = False,
) -> None:
    """Measure a run's checkpoint on held-out rows, as the run's own validation does. Prints the metrics."""
    show_launched(api.evaluate(run_id, step, overrides or ()), follow, as_json)


def generate(
    source: Annotated[str, typer.Argument(help="Whose answers: a run (`id`, `id:step`, `latest`), a checkpoint's folder, or a model.")],
    data: Annotated[str, typer.Argument(help="The prompts: a .jsonl, .jsonl.gz or .parquet file, or a Hugging Face dataset id.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, as in `job.max_tokens=128 job.temperature=0`.")] = None,
    follow: Follow = True,
    as_json: Json = False,
) -> None:
    """Answer every prompt of a data set. Prints the path of answers.jsonl; answers.parquet lies beside it."""
    show_launched(api.generate(source, data, overrides or ()), follow, as_json)


def annotate(
    data: Annotated[str, typer.Argument(help="The answers: a .jsonl, .jsonl.gz or .parquet file, or a Hugging Face dataset id.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, as in `data.format=messages job.turns=all job.write=nemo`.")] = None,
    by: Annotated[str | None, typer.Option(help="An attribute model: a run (`id`, `id:step`, `latest`) or a checkpoint's folder.")] = None,
    rule: Annotated[list[str] | None, typer.Option(help="What rates without a model: a rule's name, or path/to/file.py:function.")] = None,
    follow: Follow = True,
    as_json: Json = False,
) -> None:
    """Rate every answer of a data set by an attribute model, by rules, or both. Prints the path of annotated.jsonl."""
    show_launched(api.annotate(data, by, rule or (), overrides or ()), follow, as_json)


def show_launched(launched: api.Run, follow: bool, as_json: bool) -> None:
    """Say what was launched; follow it to its end, and say what it came to."""
    if not as_json:
        print_launched(launched)
    if not follow:
        if as_json:
            print(json.dumps(summary(launched)))
        return
    try:
        follow_to_end(launched, quiet=as_json)
    finally:
        if as_json:
            print(json.dumps({**summary(launched), **result(launched)}))
    if not as_json:
        print_result(launched)


def print_launched(item: api.Run) -> None:
    """Its id, and the folder that it lies in."""
    out.print(f"[bold]{escape(item.id)}[/]  {escape(str(item.dir.path))}", highlight=False, soft_wrap=True)


def print_result(item: api.Run) -> None:
    """The metrics of an evaluation, where the answers of a generation lie; nothing of a run that trains."""
    report = result(item)
    if "validation" in report:
        out.print(metrics_of_run({}, report["validation"]))
    if path := report.get("answers") or report.get("rows"):
        out.print(path, markup=False, highlight=False, soft_wrap=True)
