"""The command line: `workbench run|evaluate|generate|annotate|serve|adherence|list|show|profile|logs|stop|kill|resume|export|preflight|cluster|metrics|data check|doctor|app|app-url|pipeline|team|model get|bench|notebook`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from workbench import api
from workbench.rundir import opening
from workbench.rundir.store import State
from workbench.settings import plain
from workbench.settings.stored import spec_tree
from workbench.terminal import pipelines
from workbench.terminal.app import PASSED_ON, app_
from workbench.terminal.bench import bench, parity
from workbench.terminal.chaos import chaos
from workbench.terminal.console import Console
from workbench.terminal.data import data
from workbench.terminal.follow import follow as follow_to_end
from workbench.terminal.logins import app_url, team
from workbench.terminal.logs import LogReader
from workbench.terminal.machines import cluster, preflight
from workbench.terminal.metrics import metrics, metrics_of_run
from workbench.terminal.model import model
from workbench.terminal.notebook import notebook
from workbench.terminal.on_checkpoints import annotate, evaluate, generate, print_launched, print_result
from workbench.terminal.serve import serve
from workbench.terminal.steering import adherence
from workbench.terminal.summary import STATE_COLORS, listed, readable_events, result, summary
from workbench.views.text import clock

app = typer.Typer(
    help="Align language models, from a laptop to a SLURM cluster.", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)
out, err = Console(), Console(stderr=True)

RunId = Annotated[str, typer.Argument(help="A run's id, the beginning or end of one, or `latest`.")]
ResumeOverrides = Annotated[list[str] | None, typer.Argument(help="key=value of the layout or the backend, to continue with other settings.")]
Follow = Annotated[bool, typer.Option("--follow/--detach", help="Show the progress to the end, or return at once; the run continues either way.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


@app.command()
def run(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="group=choice and key=value, as in `experiment=dpo_demo algorithm.beta=0.3`; or `pipeline=NAME stage.key=value`."),
    ] = None,
    follow: Follow = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Launch nothing: print the batch script, with the settings on standard error; or the settings.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Launch an experiment, or a pipeline (`pipeline=NAME`), and follow it to its end. Ctrl-C leaves it running."""
    if of_pipeline := pipelines.named(overrides or []):
        pipelines.run(*of_pipeline, follow, dry_run, as_json)
        return
    experiment = api.compose(overrides or [])
    if dry_run:
        script = api.script(experiment)
        print(experiment.to_yaml(), end="", file=sys.stderr if script else sys.stdout)
        print(script, end="")
        return
    with contextlib.nullcontext() if as_json else err.status("launching: torch and megatron-core are being imported …"):
        launched = api.submit(experiment)
    if as_json:
        print(json.dumps(summary(launched)))
    else:
        print_launched(launched)
    if follow:
        follow_to_end(launched, quiet=as_json)
        if not as_json:
            print_result(launched)


@app.command("list")
def list_(as_json: Json = False, state: Annotated[State | None, typer.Option(help="Only runs in this state.")] = None) -> None:
    """Every run, newest first."""
    rows = [listed(item) for item in api.runs()]
    rows = [item for item in rows if state in (None, item["state"])]
    if as_json:
        print(json.dumps(rows))
        return
    if not rows and state:
        out.print(f"No run in {api.runs_root()} is {state}.", markup=False, soft_wrap=True)
        return
    if not rows:
        out.print(f"There are no runs in {api.runs_root()}. Start one: workbench run experiment=dpo_demo", markup=False, soft_wrap=True)
        return
    table = Table(Column("run", overflow="fold"), "algorithm", "state", "step", "started", box=None, header_style="dim")
    table.add_column("message", no_wrap=True, overflow="ellipsis", ratio=1)
    table.expand = True
    for item in rows:
        if item["state"] is None:
            table.add_row(escape(item["id"]), "", "", "", "", escape(item["message"]))
            continue
        notes = (f"read-only: {item['read_only']}" if item["read_only"] else "", item["settings_problem"], *item["message"].splitlines()[:1])
        state_text = f"[{STATE_COLORS.get(item['state'], 'default')}]{item['state']}[/]"
        step, message = f"{item['step']}/{item['total_steps'] or '?'}", "; ".join(filter(None, notes))
        table.add_row(escape(item["id"]), escape(item["work"]), state_text, step, clock(item["created"]), escape(message))
    out.print(table)


@app.command()
def show(run_id: RunId, as_json: Json = False) -> None:
    """One run: its state, its servers', its newest metrics, its settings."""
    item = api.get(run_id)
    servers, problems = item.servers(), item.problems()
    report = {
        **summary(item),
        "servers": [asdict(each) for each in servers],
        "metrics": {},
        "validation": {},
        "spec": spec_tree(item.dir),
        "commit": item.commit,
        "problems": [str(each) for each in problems],
    }
    for event in readable_events(item):
        if event["kind"] in ("step", "validation"):
            report["metrics" if event["kind"] == "step" else "validation"] = event.get("metrics", {})
    report |= result(item)
    if as_json:
        print(json.dumps(report))
        return
    color = STATE_COLORS.get(report["state"], "default")
    out.print(
        f"[bold]{escape(item.id)}[/]  [{color}]{report['state']}[/]  step {report['step']}/{report['total_steps'] or '?'}  {escape(str(item.dir.path))}",
        soft_wrap=True,
    )
    if report["read_only"]:
        out.print(f"read-only: {report['read_only']}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    for each in problems:
        out.print(f"unreadable: {each}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    if report["commit"]:
        out.print(f"{report['model']} at commit {report['commit']}", markup=False, highlight=False, soft_wrap=True)
    if report["message"]:
        out.print(report["message"], style="red" if report["state"] == "failed" else "", markup=False)
    for server in servers:
        out.print(f"{server.role} server: {server}", markup=False, highlight=False, soft_wrap=True)
    if report["metrics"] or report["validation"]:
        out.print(metrics_of_run(report["metrics"], report["validation"]))
    if "answers" in report:
        out.print(f"answers: {report['answers']}", markup=False, highlight=False, soft_wrap=True)
    if not report["settings_problem"]:
        out.print(opening.read_text(item.dir.spec_path), markup=False, highlight=False)


@app.command("profile")
def profile_(
    run_id: RunId,
    last: Annotated[int | None, typer.Option(min=1, help="Only the newest steps; all without it.")] = None,
    as_json: Json = False,
) -> None:
    """Where the seconds of a step go: by phase, with the rollout engine's and the servers' numbers."""
    from workbench.terminal import profile as profiling

    measured = profiling.of_events(api.get(run_id).events(), last)
    if as_json:
        print(json.dumps(asdict(measured)))
    else:
        profiling.render(measured, out)


@app.command()
def logs(
    run_id: RunId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Keep printing as the log grows, until the run ends.")] = False,
    role: Annotated[str, typer.Option(help="actor or driver.")] = "actor",
    rank: Annotated[int, typer.Option(min=0, help="Which rank's log.")] = 0,
) -> None:
    """The newest log of one rank, or of the driver (--role driver)."""
    item = api.get(run_id)
    which = (role, None if role == "driver" else rank)
    paths = item.logs(*which)
    if not paths and (not follow or item.status.state.ended):
        raise ValueError(f"run {item.id} has no log of {role} {rank}; there are: {', '.join(path.name for path in item.logs()) or 'none'}")
    reader = LogReader(paths[:-1])
    while True:
        ended = item.status.state.ended
        for path in item.logs(*which):  # a restart of the gang opens a new one
            sys.stdout.write(reader.new_text(path))
        sys.stdout.flush()
        if not follow or ended:
            return
        time.sleep(0.3)


@app.command()
def stop(run_id: RunId, wait: Annotated[bool, typer.Option("--wait", help="Return when it has stopped.")] = False) -> None:
    """Save a checkpoint and end at the next step boundary."""
    item = api.get(run_id)
    item.stop()
    if wait:
        out.print(f"{item.id} is {item.wait().state}", markup=False)
    else:
        out.print(f"{item.id} stops after its current step; `workbench resume {item.id}` continues from there", markup=False)


@app.command("set")
def set_(run_id: RunId, values: Annotated[list[str], typer.Argument(help="key=value of the algorithm: lr, kl_coefficient, temperature.")]) -> None:
    """Change settings of a run while it is running, from its next step."""
    item = api.get(run_id)
    changes = {}
    for word in values:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"expected key=value, got {word!r}")
        changes[key.removeprefix("algorithm.")] = plain.load(value)
    item.change(**changes)
    out.print(f"{item.id}: {', '.join(values)} applies from the next step", markup=False)


@app.command()
def pause(run_id: RunId) -> None:
    """Hold a run before its next step."""
    item = api.get(run_id)
    item.pause()
    out.print(f"{item.id} pauses after its current step; `workbench unpause {item.id}` lets it continue", markup=False)


@app.command()
def unpause(run_id: RunId) -> None:
    """Let a paused run continue."""
    item = api.get(run_id)
    item.unpause()
    out.print(f"{item.id} continues", markup=False)


@app.command()
def kill(run_id: RunId) -> None:
    """End a run at once, without a checkpoint."""
    item = api.get(run_id)
    item.kill()
    out.print(f"{item.id} is {item.status.state}", markup=False)


@app.command()
def resume(
    run_id: RunId,
    overrides: ResumeOverrides = None,
    follow: Follow = True,
    changed_data: Annotated[
        bool, typer.Option("--changed-data", help="Continue although a data file, or the model, is not as it was at the launch.")
    ] = False,
) -> None:
    """Continue from the latest valid checkpoint, under the same id; in another layout, say `model.tensor_parallel=1 backend.ranks_per_node=4`."""
    item = api.get(run_id)
    item.resume(overrides or (), changed_data)
    out.print(f"[bold]{escape(item.id)}[/]  attempt {item.status.attempt}")
    if follow:
        follow_to_end(item)
        print_result(item)


@app.command()
def export(
    run_id: RunId,
    target: Annotated[Path, typer.Option("--out", help="The new directory.")],
    step: Annotated[int | None, typer.Option(help="Which checkpoint; the newest without it.")] = None,
    adapter: Annotated[bool, typer.Option("--adapter", help="Write the LoRA adapters alone, for peft, instead of the merged model.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Load the result in transformers and compare its logits with the engine's.")] = False,
) -> None:
    """Write a checkpoint as a Hugging Face directory that transformers loads."""
    item = api.get(run_id)
    with out.status("exporting"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about how megatron reads checkpoints
        from transformers.utils import logging

        from workbench.jobs.export import export as write

        logging.disable_progress_bar()

        difference = write(item.dir, target, step, adapter, check)
    comparison = "" if difference is None else f"; transformers loads it, logits differ by at most {difference:.1e}"
    out.print(f"{target}: written{comparison}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def doctor(
    as_json: Json = False,
    secure: Annotated[
        bool, typer.Option("--security", help="What listens where, and what others could do. Exit code 1 where something is open.")
    ] = False,
) -> None:
    """What this machine has, and what each missing part would enable."""
    from workbench.machines import doctor, security

    if secure:
        exposed = security.examine(api.runs_root(), api.cache_root())
        if as_json:
            print(json.dumps([asdict(exposure) for exposure in exposed]))
        else:
            security.render(exposed, out)
        raise typer.Exit(int(any(exposure.level == "error" for exposure in exposed)))
    parts = doctor.examine(api.runs_root())
    if as_json:
        print(json.dumps([asdict(part) for part in parts]))
    else:
        doctor.render(parts, out)


for command in (
    evaluate,
    generate,
    annotate,
    serve,
    adherence,
    cluster,
    preflight,
    metrics,
    parity,
    chaos,
):  # after those that everyone needs, as --help lists them
    app.command()(command)
app.command("app", context_settings=PASSED_ON)(app_)
app.command("app-url")(app_url)
app.add_typer(data, name="data")
app.add_typer(model, name="model")
app.add_typer(pipelines.pipeline, name="pipeline")
app.add_typer(team, name="team")
app.add_typer(bench, name="bench")
app.add_typer(notebook, name="notebook")


def main() -> None:
    """The entry point: what the user got wrong, or the disk refused, is reported without a traceback, with exit code 2."""
    with contextlib.suppress(BrokenPipeError):
        try:
            app()
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:
            err.print("[red]error[/]", end=" ")
            err.print(str(error), markup=False, highlight=False, soft_wrap=True)
            sys.exit(2)


if __name__ == "__main__":
    main()
