"""Every algorithm on the same toy task (`workbench.bench.toy`), over several seeds: does what it is to raise rise by more than its seeds differ?

Each seed has data of its own. What answers is measured by a job that samples answers to held-out prompts, of the model as it was and as it is afterwards,
with the same draws; a reward model by the held-out pairs that it orders rightly.
"""

from __future__ import annotations

import json
import shlex
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from string import Template

from rich.console import Console
from rich.table import Table

from workbench import api
from workbench.bench import toy
from workbench.bench.entries import ENTRIES, REWARD, Entry
from workbench.bench.kept import runs_in
from workbench.metrics import find
from workbench.rundir.store import State
from workbench.settings.composing import quoted

SAMPLES = 4
"""Answers to each held-out prompt."""
PROPOSALS = 16
"""Answers of the model itself to each prompt, for data of groups."""
EVERY = (
    "model.lora.rank=0",
    "data.max_length=32",
    "algorithm.warmup_steps=5",
    f"validation.max_rows={toy.HELD_OUT}",
    "validation.every_steps=0",
    "validation.samples=0",
    "checkpoint.every_steps=0",
    "backend.threads_per_rank=1",
)
"""Words of every run."""
ENDED_EARLY = (State.STOPPED, State.KILLED, State.FAILED)


@dataclass(frozen=True)
class Outcome:
    """One seed's run. `seconds` are from its launch to its last event, None where it was interrupted; `also` is the entry's other metric, before and after."""

    seed: int
    run: str
    command: str
    seconds: float | None
    before: float
    after: float
    also: tuple[float, float] | None


@dataclass(frozen=True)
class Result:
    """All seeds of an entry."""

    entry: Entry
    outcomes: Sequence[Outcome]

    @property
    def smallest_rise(self) -> float:
        return min(each.after - each.before for each in self.outcomes)

    @property
    def spread(self) -> float:
        """How far apart the seeds end, the highest from the lowest."""
        after = [each.after for each in self.outcomes]
        return max(after) - min(after)

    @property
    def passes(self) -> bool:
        return self.smallest_rise > self.spread


def measure(only: Sequence[str], seeds: int, steps: int | None, out: Path | None, as_json: bool, console: Console) -> bool:
    """Run the entries once a seed, and print what came of it.

    Args:
        only: names of entries; empty: all.
        steps: of each run; None: the entry's own.
        out: the runs are kept here, and those that are complete are not run again; None: a folder that is gone afterwards.

    Returns whether each entry's smallest rise is above its seeds' spread.

    Raises:
        ValueError: there is no such entry; a run did not complete; or the runs in `out` are of other settings.
    """
    entries = _named(only)
    results = []
    with _folder(out) as folder, runs_in(folder / "runs"):
        bench = Bench(folder, steps, console)
        for entry in entries:
            outcomes = [bench.outcome(entry, seed) for seed in range(seeds)]
            results.append(Result(entry, outcomes))
    if as_json:
        print(json.dumps([record(each) for each in results]))
    else:
        render(results, steps, console)
    return all(each.passes for each in results)


class Bench:
    """The runs of a measurement, in its folder. What several entries need is made once, when the first needs it."""

    def __init__(self, folder: Path, steps: int | None, console: Console):
        self._folder, self._steps, self._console = folder, steps, console
        self._written: set[int] = set()

    def outcome(self, entry: Entry, seed: int) -> Outcome:
        """Of the run that is complete with these settings, else of one that is launched or resumed now. Raises ValueError where it does not complete."""
        overrides = self.overrides(entry, seed)
        run = self._completed(api.compose(overrides), f"{entry.name}-{seed}")
        if entry.metric == REWARD:
            before, after = (self._reward(of, seed) for of in (None, run))
        else:
            before, after = _held_out(run, entry.metric)
        seconds = list(run.events())[-1]["time"] - run.status.created if run.status.attempt == 1 else None
        also = _held_out(run, entry.also) if entry.also else None
        self._console.print(f"{entry.name}, seed {seed}: {before:.3f} to {after:.3f} ({run.id})", highlight=False)
        return Outcome(seed, run.id, shlex.join(["workbench", "run", *overrides]), seconds, before, after, also)

    def overrides(self, entry: Entry, seed: int) -> list[str]:
        """What comes after `workbench run`."""
        given = {"rule": quoted(f"{toy.__file__}:vowels")}
        if any("$teacher" in word for word in entry.overrides):
            given["teacher"] = quoted(str(self._teacher(seed)))
        held_out = self._data(seed) / f"{entry.data}_held_out.jsonl"
        train = self._groups(seed) if entry.data == "groups" else self._data(seed) / f"{entry.data}.jsonl"
        return [
            *(Template(word).substitute(given) for word in entry.overrides),
            f"algorithm.max_steps={self._steps or entry.steps}",
            f"name={entry.name.replace('_', '-')}",
            f"seed={seed}",
            f"model.init_seed={seed}",
            f"model.source={quoted(str(self._model))}",
            f"data.train={quoted(str(train))}",
            "data.validation_fraction=0" if entry.data == "groups" else f"data.validation={quoted(str(held_out))}",
            *EVERY,
        ]

    @cached_property
    def _model(self) -> Path:
        folder = self._folder / "model"
        if not folder.exists():
            with self._console.status("the toy model learns to answer"):
                toy.save(folder)
        return folder

    def _data(self, seed: int) -> Path:
        folder = self._folder / f"data-{seed}"
        if seed not in self._written:
            toy.write(folder, seed)
            self._written.add(seed)
        return folder

    def _teacher(self, seed: int) -> Path:
        """The folder of the model that SFT makes of the demonstrations."""
        (entry,) = _named(["sft"])
        run = self._completed(api.compose(self.overrides(entry, seed)), f"{entry.name}-{seed}")
        exported = self._completed(api.compose(["job=export", f"job.checkpoint={run.id}", "name=teacher"]), f"teacher-{seed}")
        return exported.dir.path / "export"

    def _groups(self, seed: int) -> Path:
        """Answers of the model as it is, with what the rule gives for them."""
        path = self._data(seed) / "groups.jsonl"
        toy.lines(path, toy.groups(self._answers(None, seed, "prompts", PROPOSALS)))
        return path

    def _reward(self, of: api.Run | None, seed: int) -> float:
        """The mean reward of sampled answers to held-out prompts: of a run's model, or of the model as it was."""
        return statistics.fmean(toy.reward(each["response"]) for each in self._answers(of, seed, "prompts_held_out", SAMPLES))

    def _answers(self, of: api.Run | None, seed: int, data: str, samples: int) -> list[toy.Answer]:
        once = f"{data}-{samples}-of-{of.id if of else 'model'}-{seed}"
        source = f"job.checkpoint={of.id}" if of else f"model.source={quoted(str(self._model))}"
        overrides = (
            "job=generate",
            "name=answers",
            source,
            f"data.train={quoted(str(self._data(seed) / f'{data}.jsonl'))}",
            f"job.samples_per_prompt={samples}",
            f"job.max_tokens={toy.MAX_TOKENS}",
            "job.prompts_per_step=256",
            f"seed={seed}",
            "backend.threads_per_rank=1",
        )
        run = self._completed(api.compose(overrides), once)
        return [json.loads(line) for line in (run.dir.path / "answers.jsonl").read_text().splitlines()]

    def _completed(self, experiment: api.Experiment, once: str) -> api.Run:
        """The run that was launched under this name, or is now. Where it was interrupted it is resumed; one that is interrupted now is killed.

        Raises:
            ValueError: it does not complete; or the one that was launched has other settings.
        """
        before = {run.id for run in api.runs()}
        run = api.submit(experiment, once)
        if run.id in before and run.status.state in ENDED_EARLY:
            run.resume()
        try:
            with self._console.status(f"{once}: {run.id}"):
                status = run.wait()
        finally:
            if not run.status.state.ended:
                run.kill()
        if status.state != State.COMPLETED:
            raise ValueError(f"{once}: run {run.dir.path} is {status.state}: {status.message}")
        return run


def record(result: Result) -> dict[str, object]:
    """A row of the table for a program."""
    more = {"smallest_rise": result.smallest_rise, "spread": result.spread, "passes": result.passes}
    return {**asdict(result.entry), "outcomes": [asdict(each) for each in result.outcomes], **more}


def _named(names: Sequence[str]) -> list[Entry]:
    known = {entry.name: entry for entry in ENTRIES}
    for name in names:
        if name not in known:
            raise ValueError(f"there is no entry {name!r}; there are: {', '.join(known)}")
    return [known[name] for name in names or known]


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        yield out.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="workbench-algorithms-") as folder:
        yield Path(folder)


def _held_out(run: api.Run, metric: str) -> tuple[float, float]:
    """A metric of the run's first and last validation."""
    values = [event["metrics"][metric] for event in run.events() if event["kind"] == "validation"]
    return values[0], values[-1]


def render(results: Sequence[Result], steps: int | None, console: Console) -> None:
    """Print the table, and below it the overrides of each row."""
    columns = (
        "",
        "learns from",
        "steps",
        "seconds",
        "metric",
        "before",
        "after",
        "lowest to highest",
        "smallest rise",
        "spread",
        "held out, first seed",
    )
    table = Table(*columns, title=f"a toy task: answering with vowels, a Llama of 0.1M parameters, seeds: {len(results[0].outcomes)}")
    for each in results:
        entry, after = each.entry, [outcome.after for outcome in each.outcomes]
        seconds = [outcome.seconds for outcome in each.outcomes if outcome.seconds is not None]
        table.add_row(
            entry.name,
            entry.data,
            str(steps or entry.steps),
            f"{statistics.median(seconds):.1f}" if seconds else "–",
            entry.metric,
            f"{statistics.fmean(outcome.before for outcome in each.outcomes):.3f}",
            f"{statistics.fmean(after):.3f}",
            f"{min(after):.3f} to {max(after):.3f}",
            f"{each.smallest_rise:.3f}",
            f"{each.spread:.3f}",
            _also(each),
            style="" if each.passes else "red",
        )
    console.print(table)
    for each in results:
        console.print(f"{each.entry.name}: workbench run {shlex.join(each.entry.overrides)}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"each of them also: {shlex.join(EVERY)}; model, data, seed and name are in --json", highlight=False, markup=False, soft_wrap=True)
    within = [each.entry.name for each in results if not each.passes]
    console.print(f"rises within the seeds' spread: {', '.join(within) or 'none'}", highlight=False)


def _also(result: Result) -> str:
    """The entry's other metric of the first seed."""
    also = result.outcomes[0].also
    if also is None or result.entry.also is None:
        return ""
    known = find(result.entry.also)
    return f"{known.heading if known else result.entry.also} {also[0]:.3f} to {also[1]:.3f}"
