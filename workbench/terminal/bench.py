"""`workbench bench …` and `workbench parity`: measurements, each in a file of its own beside this one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from workbench.terminal.console import Console

bench = typer.Typer(help="Measure this engine side by side with another.", no_args_is_help=True)
out, err = Console(), Console(stderr=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


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
        results = measure.run([case for case in cases if case.name not in impossible], lambda names: status.update(f"measuring {names}"))
    failed = [each for each in results if each.worst > measure.LIMIT]
    if as_json:
        print(json.dumps([{**asdict(each), "worst": each.worst} for each in results], indent=2))
    else:
        table = Table("layout", *measure.ALGORITHMS, title=f"largest relative difference from one rank in {measure.STEPS} steps")
        for name in dict.fromkeys(each.case for each in results):
            worst = [max(each.worst for each in results if (each.case, each.algorithm) == (name, algorithm)) for algorithm in measure.ALGORITHMS]
            table.add_row(name, *(f"[red]{n:.1e}[/]" if n > measure.LIMIT else f"{n:.1e}" for n in worst))
        out.print(table)
        for name, why in impossible.items():
            out.print(f"{name} {why}")
        out.print(f"{len(results) - len(failed)} of {len(results)} comparisons (losses, gradient norms, weights) within {measure.LIMIT:.0e}")
    raise typer.Exit(bool(failed))


Rounds = Annotated[int, typer.Option(min=1, help="Alternating measurements of each.")]
Rows = Annotated[str, typer.Option("--data", help="Preference rows; the demo's own without it.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Rows in a step.")]
Precision = Annotated[Literal["fp32", "bf16"], typer.Option(help="Of both sides.")]
MaxTokens = Annotated[int, typer.Option(min=16, help="Longest side of a row: TRL pads, and runs out of memory on long ones.")]
Whose = Annotated[list[str] | None, typer.Option(help="Whose PPO (again for more): `tiny`, a random one, or any other, smollm2-135m-instruct say.")]
DEMO_ROWS = "workbench/data/demo/preferences.jsonl"


def _against_trl(kind: Literal["dpo", "sft"], what: str) -> None:
    @bench.command(kind, help=f"{what}: TRL and this engine, the same weights, adapters, rows, batch and precision, in turn.")
    def command(
        rounds: Rounds = 3,
        rows: Rows = DEMO_ROWS,
        batch_size: BatchSize = 8,
        precision: Precision = "fp32",
        max_tokens: MaxTokens = 160,
        as_json: Json = False,
    ) -> None:
        from workbench.bench.compare import compare

        compare(kind, rounds, rows, batch_size, precision, max_tokens, as_json, out)


_against_trl("dpo", "DPO")
_against_trl("sft", "SFT on the chosen answers")


@bench.command("reward")
def bench_reward(
    rows: Rows = DEMO_ROWS,
    seeds: Annotated[int, typer.Option(min=1, max=10, help="Each has its own split and initialisation.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps of 16 pairs; one epoch without it.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first rows.")] = None,
    train: Annotated[bool, typer.Option("--train/--baselines", help="Without training, the baselines take seconds.")] = True,
    as_json: Json = False,
) -> None:
    """A reward model against a bag of words and against length, on held-out pairs. Called again, it continues where it was."""
    from workbench.bench.reward import compare

    compare(rows, seeds, steps, limit, train, as_json, err if as_json else out)


@bench.command("algorithms")
def bench_algorithms(
    only: Annotated[list[str] | None, typer.Option(help="A row of the table by its name (again for more); all without it.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Each has data of its own.")] = 3,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps of each run; without it as many as the row says.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Keep the runs in this folder: called again with it, the command continues where it was. A temporary one without it."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Every algorithm on one toy task, a tiny model that learns to answer with vowels: seconds, what is to rise before and after, and the seeds' spread. Ends with 1 where a rise is within it."""
    from workbench import api
    from workbench.bench.algorithms import measure

    api.keep_warm()
    raise typer.Exit(not measure(only or (), seeds, steps, folder, as_json, err if as_json else out))


@bench.command("ppo")
def bench_ppo(
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, as for `workbench run`.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Runs, one after the other.")] = 3,
    as_json: Json = False,
) -> None:
    """The demo of PPO over several seeds: held-out rewards, KL, answers before and after. Ends with 1 if the rise is within the seeds' spread."""
    import functools

    from workbench.bench.ppo import measure
    from workbench.terminal.follow import follow

    raise typer.Exit(not measure(seeds, overrides or (), as_json, err if as_json else out, functools.partial(follow, quiet=as_json)))


@bench.command("steering")
def bench_steering(
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, as for `workbench run pipeline=…`.")] = None,
    pipeline: Annotated[str, typer.Option(help="Which pipeline: its name, or a YAML file.")] = "steerlm_demo",
    seeds: Annotated[int, typer.Option(min=1, max=20, help="Pipelines, one after the other.")] = 3,
    as_json: Json = False,
) -> None:
    """The demo of SteerLM over several seeds: requested against measured attributes. Ends with 1 where a slider does not do what it says."""
    import functools

    from workbench.bench.steering import measure
    from workbench.terminal.pipelines import follow_to_end

    follow = functools.partial(follow_to_end, quiet=as_json)
    raise typer.Exit(not measure(pipeline, range(seeds), overrides or (), as_json, err if as_json else out, follow))


@bench.command("serving")
def bench_serving(
    calls: Annotated[int, typer.Option(min=20, help="Round trips of each payload over each link.")] = 100,
    model: Annotated[str, typer.Option(help="Of the PPO: `tiny`, a random one, or any other.")] = "tiny",
    steps: Annotated[int, typer.Option(min=0, help="Steps of PPO over each link; 0 leaves it out.")] = 6,
    plot: Annotated[Path | None, typer.Option(help="Draw it into this HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """Round trips to a PyTriton server by payload, on loopback and over slow links (those need root), and their share of a PPO step."""
    from workbench.bench.serving import measure

    measure(calls, model, steps, as_json, plot, err if as_json else out)


@bench.command("endpoint")
def bench_endpoint(
    model: Annotated[str, typer.Option(help="What is served: a model, or a run's checkpoint by its folder.")] = "smollm2-135m-instruct",
    at_once: Annotated[int, typer.Option(min=2, help="Requests at once, beside one alone.")] = 8,
    rounds: Rounds = 3,
    tokens: Annotated[int, typer.Option(min=2, help="Longest answer in tokens.")] = 64,
    as_json: Json = False,
) -> None:
    """A policy endpoint over HTTP: seconds to the first token, and tokens a second, alone and with others. Ends with 1 if the first takes a second or more."""
    from workbench.bench.endpoint import measure

    raise typer.Exit(not measure(model, at_once, rounds, tokens, as_json, err if as_json else out))


@bench.command("placement")
def bench_placement(
    rounds: Rounds = 3,
    model: Whose = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each run that are counted, after a first that is not.")] = 6,
    as_json: Json = False,
) -> None:
    """PPO with critic and reward in the policy's own processes, and behind servers: seconds a step, in turn."""
    from workbench.bench.placement import compare
    from workbench.bench.short_ppo import TINY

    compare(model or [TINY], rounds, steps, as_json, err if as_json else out)


@bench.command("start")
def bench_start(
    model: Annotated[list[str] | None, typer.Option(help="`tiny`, a random one, or any other; several in turn.")] = None,
    ranks: Annotated[list[int] | None, typer.Option(min=1, help="Ranks of the run; several in turn.")] = None,
    rounds: Rounds = 3,
    busy: Annotated[int, typer.Option(min=0, help="Endless loops that take processor time meanwhile.")] = 0,
    as_json: Json = False,
) -> None:
    """`workbench run` from the command to the first step, and from the last step to the prompt."""
    from workbench.bench.start import TINY, measure

    measure(model or [TINY, "smollm2-135m-instruct"], ranks or [1], rounds, busy, as_json, err if as_json else out)


@bench.command("refit")
def bench_refit(
    model: Whose = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each run that are counted, after a first that is not.")] = 6,
    as_json: Json = False,
) -> None:
    """What giving the rollout engine new weights costs a step of PPO, by engine. Ends with 1 if a share is above 1 %."""
    from workbench.bench.refit import compare
    from workbench.bench.short_ppo import TINY

    raise typer.Exit(not compare(model or [TINY], steps, as_json, err if as_json else out))


@bench.command("decode")
def bench_decode(
    rounds: Rounds = 3,
    model: Annotated[
        list[str] | None, typer.Option(help="A model to decode (again for more), or `tiny`, a random one; without it smollm2-135m-instruct and tiny.")
    ] = None,
    precision: Precision = "fp32",
    as_json: Json = False,
) -> None:
    """The embedded decoder and transformers' generate: the same weights, prompts and answer lengths, in turn."""
    from workbench.bench.decode import MODELS, compare

    compare(model or MODELS, rounds, precision, as_json, err if as_json else out)


@bench.command("streaming")
def bench_streaming(
    rates: Annotated[list[float] | None, typer.Option("--rate", min=0.1, help="Events a second (again for more); 1, 10 and 100 without it.")] = None,
    viewers: Annotated[list[int] | None, typer.Option(min=1, help="People who watch (again for more); 1, 10 and 50 without it.")] = None,
    seconds: Annotated[float, typer.Option(min=2, help="How long each is measured.")] = 25,
    folder: Annotated[
        Path | None, typer.Option(help="Where the ranks write, on the file system to be measured; a temporary folder without it.")
    ] = None,
    seen_at: Annotated[Path | None, typer.Option(help="The same folder as the app sees it, where that is another mount of it.")] = None,
    as_json: Json = False,
) -> None:
    """From a rank's write to the curve and the table in a real Chromium. Ends with 1 if a p99 is two seconds or more."""
    from workbench.bench.streaming import measure

    good = measure(rates or (1, 10, 100), viewers or (1, 10, 50), seconds, folder, seen_at, as_json, err if as_json else out)
    raise typer.Exit(not good)


@bench.command("notebook")
def bench_notebook(
    points: Annotated[int, typer.Option(min=100, help="Of the long curve.")] = 100_000,
    widgets: Annotated[int, typer.Option(min=1, help="Live views at once, each of a run of its own.")] = 20,
    rate: Annotated[float, typer.Option(min=0.1, help="Steps a second of each run.")] = 1.0,
    seconds: Annotated[float, typer.Option(min=2, help="How long the live views are measured.")] = 20,
    as_json: Json = False,
) -> None:
    """The live widgets in a real JupyterLab and Chromium: a long curve, many live views, and from a rank's write to the figure. Ends with 1 if one is above its limit."""
    from workbench.bench.notebook import measure

    raise typer.Exit(not measure(points, widgets, rate, seconds, as_json, err if as_json else out))
