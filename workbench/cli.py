"""The command line: `workbench run|list|show|logs|stop|kill|resume|export|data check|doctor|bench`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from workbench import api
from workbench.data.readers import Kind
from workbench.store import Cursor, State

app = typer.Typer(
    help="Align language models, from a laptop to a SLURM cluster.", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False
)
data = typer.Typer(help="Look at data before training on it.", no_args_is_help=True)
bench = typer.Typer(help="Measure this engine side by side with another.", no_args_is_help=True)
app.add_typer(data, name="data")
app.add_typer(bench, name="bench")
out, err = Console(), Console(stderr=True)

RunId = Annotated[str, typer.Argument(help="A run's id, the beginning or end of one, or `latest`.")]
ResumeOverrides = Annotated[list[str] | None, typer.Argument(help="key=value of the layout or the backend, to go on in another way.")]
Follow = Annotated[bool, typer.Option("--follow/--detach", help="Show the progress to the end, or return at once; the run goes on either way.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
STATE_COLORS = {"running": "green", "completed": "blue", "failed": "red", "stopped": "yellow", "stopping": "yellow"}


@app.command()
def run(
    overrides: Annotated[list[str] | None, typer.Argument(help="group=choice and key=value, as in `experiment=dpo_demo algorithm.beta=0.3`.")] = None,
    follow: Follow = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved experiment and launch nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Launch an experiment and follow it to its end. Ctrl-C leaves it running."""
    experiment = api.compose(overrides or [])
    if dry_run:
        print(experiment.to_yaml(), end="")
        return
    launched = api.submit(experiment)
    if as_json:
        print(json.dumps(_summary(launched)))
    else:
        out.print(f"[bold]{launched.id}[/]  {launched.dir.path}")
    if follow:
        _follow(launched, quiet=as_json)


@app.command("list")
def list_(as_json: Json = False, state: Annotated[str | None, typer.Option(help="Only runs in this state.")] = None) -> None:
    """Every run, newest first."""
    found = [_summary(item) for item in api.runs()]
    found = [item for item in found if state in (None, item["state"])]
    if as_json:
        print(json.dumps(found))
        return
    if not found:
        out.print(f"There are no runs in {api.runs_root()}. Start one: workbench run experiment=dpo_demo")
        return
    table = Table("run", "algorithm", "state", "step", "started", "message", box=None, header_style="dim")
    for item in found:
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(item["created"]))
        state_text = f"[{STATE_COLORS.get(item['state'], 'default')}]{item['state']}[/]"
        message = (item["message"].splitlines() or [""])[0]
        table.add_row(item["id"], item["algorithm"], state_text, f"{item['step']}/{item['total_steps'] or '?'}", started, escape(message))
    out.print(table)


@app.command()
def show(run_id: RunId, as_json: Json = False) -> None:
    """One run: its state, its newest metrics, its settings."""
    found = api.get(run_id)
    summary = {**_summary(found), "metrics": {}, "validation": {}, "spec": yaml.safe_load(found.dir.spec_path.read_text())}
    for event in found.events():
        if event["kind"] in ("step", "validation"):
            summary["metrics" if event["kind"] == "step" else "validation"] = event["metrics"]
    if as_json:
        print(json.dumps(summary))
        return
    color = STATE_COLORS.get(summary["state"], "default")
    out.print(f"[bold]{found.id}[/]  [{color}]{summary['state']}[/]  step {summary['step']}/{summary['total_steps'] or '?'}  {found.dir.path}")
    if summary["message"]:
        out.print(summary["message"], style="red" if summary["state"] == "failed" else "", markup=False)
    table = Table("metric", "last step", "held out", box=None, header_style="dim")
    for name in sorted({*summary["metrics"], *summary["validation"]}):
        table.add_row(name, *(_number(summary[part].get(name)) for part in ("metrics", "validation")))
    out.print(table)
    out.print(found.dir.spec_path.read_text(), markup=False, highlight=False)


@app.command()
def logs(
    run_id: RunId,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as the log grows, until the run ends.")] = False,
    role: Annotated[str, typer.Option(help="actor or driver.")] = "actor",
    rank: Annotated[int, typer.Option(min=0, help="Which rank's log.")] = 0,
) -> None:
    """The newest log of one rank, or of the driver (--role driver)."""
    found = api.get(run_id)
    which = (role, None if role == "driver" else rank)
    paths = found.logs(*which)
    if not paths and (not follow or found.status.state.ended):
        raise ValueError(f"run {found.id} has no log of {role} {rank}; there are: {', '.join(path.name for path in found.logs()) or 'none'}")
    read = {path: path.stat().st_size for path in paths[:-1]}
    while True:
        ended = found.status.state.ended
        for path in found.logs(*which):  # a restart of the gang opens a new one
            with path.open("rb") as file:
                file.seek(read.get(path, 0))
                sys.stdout.buffer.write(file.read())
                read[path] = file.tell()
        sys.stdout.buffer.flush()
        if not follow or ended:
            return
        time.sleep(0.3)


@app.command()
def stop(run_id: RunId, wait: Annotated[bool, typer.Option("--wait", help="Return when it has stopped.")] = False) -> None:
    """Save a checkpoint and end at the next step boundary."""
    found = api.get(run_id)
    found.stop()
    if wait:
        out.print(f"{found.id} is {found.wait().state}")
    else:
        out.print(f"{found.id} stops after its current step; `workbench resume {found.id}` goes on from there")


@app.command("set")
def set_(run_id: RunId, values: Annotated[list[str], typer.Argument(help="key=value of the algorithm: lr, kl_coefficient, temperature.")]) -> None:
    """Change settings of a run while it goes on, from its next step."""
    found = api.get(run_id)
    changes = {}
    for word in values:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"expected key=value, got {word!r}")
        changes[key.removeprefix("algorithm.")] = yaml.safe_load(value)
    found.change(**changes)
    out.print(f"{found.id} takes it over at its next step: {', '.join(values)}", markup=False)


@app.command()
def pause(run_id: RunId) -> None:
    """Hold a run before its next step."""
    found = api.get(run_id)
    found.pause()
    out.print(f"{found.id} pauses after its current step; `workbench unpause {found.id}` lets it go on")


@app.command()
def unpause(run_id: RunId) -> None:
    """Let a paused run go on."""
    found = api.get(run_id)
    found.unpause()
    out.print(f"{found.id} goes on")


@app.command()
def kill(run_id: RunId) -> None:
    """End a run at once, without a checkpoint."""
    found = api.get(run_id)
    found.kill()
    out.print(f"{found.id} is {found.status.state}")


@app.command()
def resume(run_id: RunId, overrides: ResumeOverrides = None, follow: Follow = True) -> None:
    """Go on from the newest sound checkpoint, under the same id; in another layout, say `model.tensor_parallel=1 backend.ranks_per_node=4`."""
    found = api.get(run_id)
    found.resume(overrides or ())
    out.print(f"[bold]{found.id}[/]  attempt {found.status.attempt}")
    if follow:
        _follow(found)


@app.command()
def export(
    run_id: RunId,
    target: Annotated[Path, typer.Option("--out", help="The new directory.")],
    step: Annotated[int | None, typer.Option(help="Which checkpoint; the newest without it.")] = None,
    adapter: Annotated[bool, typer.Option("--adapter", help="Write the LoRA adapters alone, for peft, instead of the merged model.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Load the result in transformers and compare its logits with the engine's.")] = False,
) -> None:
    """Write a checkpoint as a Hugging Face directory that transformers loads."""
    found = api.get(run_id)
    with out.status("exporting"):
        from workbench.engine.export import export as write

        difference = write(found.dir, target, step, adapter, check)
    out.print(f"{target}: written" + ("" if difference is None else f"; transformers loads it, logits differ by at most {difference:.1e}"))


@data.command("check")
def data_check(
    source: Annotated[str, typer.Argument(help="A .jsonl, .jsonl.gz or .parquet file, or a Hugging Face dataset id.")],
    kind: Annotated[Kind, typer.Option(help="What an algorithm would read it as.")] = "preference",
    format_: Annotated[str, typer.Option("--format", help="The rows' schema; auto tells it from the first row.")] = "auto",
    model: Annotated[str, typer.Option(help="Whose tokenizer and chat template to use.")] = "smollm2-135m-instruct",
    max_length: Annotated[int, typer.Option(min=8, help="Longest row in tokens.")] = 1024,
    rows: Annotated[str | None, typer.Option(help="OFFSET:COUNT, to page through the rows with their loss mask.")] = None,
    as_json: Json = False,
) -> None:
    """Count, measure and show a data set's rows as training would see them."""
    from workbench.data import check
    from workbench.engine import hf

    tokenizer = hf.tokenizer(hf.local_directory(model))
    if rows is not None:
        offset, _, count = rows.partition(":")
        if not (offset.isdigit() and count.isdigit()):
            raise ValueError(f"--rows {rows}: expected OFFSET:COUNT, such as 0:20")
        print(check.browse(source, kind, tokenizer, int(offset), int(count), format_).model_dump_json(indent=None if as_json else 2))
        return
    report = check.check(source, kind, tokenizer, format=format_, max_length=max_length)
    if as_json:
        print(report.model_dump_json())
    else:
        check.render(report, out)


@app.command()
def parity(
    only: Annotated[list[str] | None, typer.Argument(help="Layouts to compare, by name (`TP2 PP2`); all without any.")] = None,
    as_json: Json = False,
) -> None:
    """Show that every layout computes what one rank does: losses, gradient norms and updated weights of the first steps. Ends with 1 if not."""
    from workbench.bench import parity as measure

    known = {case.name: case for case in measure.CASES}
    unknown = [name for name in only or () if name not in known]
    if unknown:
        raise ValueError(f"there is no layout {unknown[0]!r}; there are: {', '.join(known)}")
    cases = [known[name] for name in only or known]
    impossible = {case.name: why for case in cases if (why := measure.possible(case))}
    with out.status("…") as status:
        found = measure.run([case for case in cases if case.name not in impossible], lambda names: status.update(f"measuring {names}"))
    failed = [each for each in found if each.worst > measure.LIMIT]
    if as_json:
        print(json.dumps([{**asdict(each), "worst": each.worst} for each in found], indent=2))
    else:
        table = Table("layout", *measure.ALGORITHMS, title=f"largest relative difference from one rank in {measure.STEPS} steps")
        for name in dict.fromkeys(each.case for each in found):
            worst = [max(each.worst for each in found if (each.case, each.algorithm) == (name, algorithm)) for algorithm in measure.ALGORITHMS]
            table.add_row(name, *(f"[red]{n:.1e}[/]" if n > measure.LIMIT else f"{n:.1e}" for n in worst))
        out.print(table)
        for name, why in impossible.items():
            out.print(f"{name} {why}")
        out.print(f"{len(found) - len(failed)} of {len(found)} comparisons (losses, gradient norms, weights) within {measure.LIMIT:.0e}")
    raise typer.Exit(bool(failed))


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine has, and what each missing part would enable."""
    from workbench.doctor import examine, render

    found = examine(api.runs_root())
    if as_json:
        print(json.dumps([asdict(part) for part in found]))
    else:
        render(found, out)


Rounds = Annotated[int, typer.Option(min=1, help="Alternating measurements of each.")]
Rows = Annotated[str, typer.Option("--data", help="Preference rows; the demo's own without it.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Rows in a step.")]
Precision = Annotated[Literal["fp32", "bf16"], typer.Option(help="Of both sides.")]
MaxTokens = Annotated[int, typer.Option(min=16, help="Longest side of a row: TRL pads, and runs out of memory on long ones.")]
DEMO_ROWS = "workbench/data/demo/preferences.jsonl"


@bench.command("dpo")
def bench_dpo(
    rounds: Rounds = 3,
    rows: Rows = DEMO_ROWS,
    batch_size: BatchSize = 8,
    precision: Precision = "fp32",
    max_tokens: MaxTokens = 160,
    as_json: Json = False,
) -> None:
    """DPO: TRL and this engine, the same weights, adapters, rows, batch and precision, in turn."""
    from workbench.bench.compare import compare

    compare("dpo", rounds, rows, batch_size, precision, max_tokens, as_json, out)


@bench.command("sft")
def bench_sft(
    rounds: Rounds = 3,
    rows: Rows = DEMO_ROWS,
    batch_size: BatchSize = 8,
    precision: Precision = "fp32",
    max_tokens: MaxTokens = 160,
    as_json: Json = False,
) -> None:
    """SFT on the chosen answers: TRL and this engine, the same weights, adapters, rows, batch and precision, in turn."""
    from workbench.bench.compare import compare

    compare("sft", rounds, rows, batch_size, precision, max_tokens, as_json, out)


@bench.command("reward")
def bench_reward(
    rows: Rows = DEMO_ROWS,
    seeds: Annotated[int, typer.Option(min=1, max=10, help="Each has its own split and initialisation.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps of 16 pairs; one epoch without it.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first rows.")] = None,
    train: Annotated[bool, typer.Option("--train/--baselines", help="Without training, the baselines take seconds.")] = True,
    as_json: Json = False,
) -> None:
    """A reward model against a bag of words and against length, on held-out pairs. Called again, it goes on where it was."""
    from workbench.bench.reward import compare

    compare(rows, seeds, steps, limit, train, as_json, err if as_json else out)


@bench.command("serving")
def bench_serving(
    calls: Annotated[int, typer.Option(min=20, help="Round trips of each payload over each link.")] = 100,
    plot: Annotated[Path | None, typer.Option(help="Draw it into this HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """Round trips to a PyTriton server: latency and MB/s by payload, on loopback and over slow links (those need root)."""
    from workbench.bench.serving import measure

    measure(calls, as_json, plot, err if as_json else out)


@bench.command("decode")
def bench_decode(
    rounds: Rounds = 3,
    model: Annotated[
        list[str] | None, typer.Option(help="A model to decode (again for more), or `tiny`, a random one; without it smollm2-135m-instruct and tiny.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The embedded decoder and transformers' generate: the same weights, prompts and answer lengths, in turn."""
    from workbench.bench.decode import MODELS, compare

    compare(model or MODELS, rounds, as_json, err if as_json else out)


def _summary(item: api.Run) -> dict[str, Any]:
    status, spec = item.status, yaml.safe_load(item.dir.spec_path.read_text())  # unchecked: a run of an older version is listed too
    fields = ("message", "attempt", "step", "total_steps", "created", "updated")
    return {
        "id": item.id,
        "name": spec["name"],
        "algorithm": spec["algorithm"]["name"],
        "model": spec["model"]["source"],
        "state": str(status.state),
        "path": str(item.dir.path),
        **{name: getattr(status, name) for name in fields},
    }


def _follow(item: api.Run, quiet: bool = False) -> None:
    """A progress bar until the run ends. Exits 1 when it failed."""
    try:
        for line in _watch(item, quiet):
            out.print(line, highlight=False)
    except KeyboardInterrupt:
        err.print(f"\n{item.id} goes on. Follow it: workbench logs -f {item.id}; end it: workbench stop {item.id}")
        raise typer.Exit(0) from None
    status = item.status
    if status.state == State.FAILED:
        err.print(f"[red]{item.id} failed[/]")
        err.print(status.message, markup=False, highlight=False)
        raise typer.Exit(1)
    if not quiet:
        out.print(f"{item.id} is {status.state} at step {status.step}/{status.total_steps}")


def _watch(item: api.Run, quiet: bool) -> Iterator[str]:
    """Drives the bar from the run's events; yields a line for each validation."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    cursor = Cursor()
    columns = (
        "{task.description}",
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[metrics]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, disable=quiet) as progress:
        bar = progress.add_task("starting", total=None, metrics="")
        while True:
            ended = item.status.state.ended
            for event in item.events(cursor):
                match event["kind"]:
                    case "phase":
                        progress.update(bar, description=escape(event["message"]), completed=event.get("done", 0), total=event.get("total"))
                    case "state":
                        progress.reset(bar, description="training", total=event["total_steps"], completed=event["step"], metrics="")
                    case "step":
                        progress.update(bar, completed=event["step"], metrics=_brief(event["metrics"]))
                    case "alarm" if not quiet:
                        yield f"[red]alarm[/] {escape(event['name'])} at step {event['step']}: {escape(event['message'])}"
                    case "warning" if not quiet:
                        yield f"[yellow]warning[/] {escape(event['message'])}"
                    case "validation" if not quiet:
                        yield f"step {event['step']:>5}  held out: {_brief(event['metrics'])}"
            if ended:
                return
            time.sleep(0.2)


def _brief(metrics: dict[str, Any]) -> str:
    names = {
        "rewards": "reward",
        "init_policy_kl": "KL",
        "loss": "loss",
        "accuracy": "accuracy",
        "rewards_margin": "margin",
        "tokens_per_s": "tokens/s",
    }
    return "  ".join(f"{label} {_number(metrics[name])}" for name, label in names.items() if name in metrics)


def _number(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:,.4g}"


def main() -> None:
    """The entry point: what the user got wrong, or the disk refused, is told without a traceback, with exit code 2."""
    with contextlib.suppress(BrokenPipeError):
        try:
            app()
        except BrokenPipeError:
            raise
        except (ValueError, OSError) as error:
            err.print("[red]error[/]", end=" ")
            err.print(str(error), markup=False, highlight=False)
            sys.exit(2)


if __name__ == "__main__":
    main()
