"""The demo of SteerLM over several seeds: do its sliders do what they say, after each way of training, and by how much do the seeds differ?"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

from workbench import api
from workbench.rundir.adherence import Adherence, Attribute
from workbench.rundir.store import State
from workbench.settings.stored import job, spec_tree

LEAST_SPEARMAN = 0.6
"""Of the requested verbosity and an answer's words."""
SWEPT = "verbosity"


@dataclass(frozen=True)
class Measured:
    """What one stage of a pipeline that measures adherence found. `words` are the mean words by requested verbosity; `moved[a][b]` is how far the highest
    request of a moves measured b from the lowest one's."""

    stage: str
    run: str
    words: dict[str, float]
    spearman_words: float | None
    spearman: dict[str, float | None]
    error: dict[str, float | None]
    moved: dict[str, dict[str, float | None]]

    @property
    def rises(self) -> bool:
        """Each verbosity has longer answers than the one below."""
        values = list(self.words.values())
        return len(values) > 1 and all(above > below for below, above in itertools.pairwise(values))

    @property
    def own_first(self) -> bool:
        """Each other attribute moves its own measure more than any other's."""
        return all(_most(name, moved) for name, moved in self.moved.items() if name != SWEPT)

    @property
    def passes(self) -> bool:
        return self.rises and self.own_first and (self.spearman_words or 0.0) >= LEAST_SPEARMAN


def _most(name: str, moved: dict[str, float | None]) -> bool:
    own = moved.get(name)
    return own is not None and own > max((abs(value or 0.0) for other, value in moved.items() if other != name), default=0.0)


@dataclass(frozen=True)
class Outcome:
    """One seed's pipeline."""

    pipeline: str
    seed: int
    minutes: float
    stages: list[Measured]


def measure(
    name: str, seeds: Sequence[int], overrides: Sequence[str], as_json: bool, console: Console, follow: Callable[[api.Pipeline], object]
) -> bool:
    """Run a pipeline once a seed, `follow` each to its end, and print what its stages of job kind `adhere` measured.

    Returns whether every stage of every seed passes: mean words rise with the requested verbosity, Spearman's correlation of the two is at least
    `LEAST_SPEARMAN`, and each other attribute moves its own measure more than any other's.

    Raises:
        ValueError: a pipeline did not complete, or has no stage that measures adherence.
    """
    outcomes = []
    for seed in seeds:
        launched = api.submit_pipeline(name, [f"seed={seed}", *overrides])
        console.print(f"seed {seed}: {launched.id}", highlight=False)
        follow(launched)
        outcomes.append(outcome(launched, seed))
    if as_json:
        print(json.dumps([asdict(each) for each in outcomes]))
    else:
        for table in tables(outcomes):
            console.print(table)
    return all(stage.passes for each in outcomes for stage in each.stages)


def outcome(pipeline: api.Pipeline, seed: int) -> Outcome:
    """What a completed pipeline's stages measured. The time is from its creation to the last change of a stage.

    Raises:
        ValueError: it is not complete, or none of its stages measures adherence.
    """
    status = pipeline.status
    if status.state != State.COMPLETED:
        raise ValueError(f"pipeline {pipeline.id} is {status.state}: {status.message}")
    runs = [(stage.name, stage.run) for stage in status.stages if stage.run and job(spec_tree(stage.run.dir)) == "adhere"]
    if not runs:
        raise ValueError(f"pipeline {pipeline.id} has no stage that measures adherence (job=adhere)")
    return Outcome(pipeline.id, seed, (status.updated - status.created) / 60, [of(name, run.id, api.adherence(run.id)) for name, run in runs])


def of(stage: str, run: str, measured: Adherence) -> Measured:
    """The figures of one stage. Raises ValueError where verbosity was not requested."""
    swept = measured.of(SWEPT)
    by_name = {each.name: each for each in measured.attributes}
    return Measured(
        stage=stage,
        run=run,
        words={f"{level.requested:g}": value for level in swept.levels if (value := level.words.value) is not None},
        spearman_words=swept.words.value,
        spearman={name: each.spearman.value for name, each in by_name.items()},
        error={name: each.error.value for name, each in by_name.items()},
        moved={name: _moved(each) for name, each in by_name.items()},
    )


def _moved(attribute: Attribute) -> dict[str, float | None]:
    return {other: estimate.value for other, estimate in attribute.moved.items()}


def tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """A row a seed and stage: words by requested verbosity and their rank correlation; and how far each attribute moves which."""
    levels = list(outcomes[0].stages[0].words)
    lengths = Table("stage", "seed", *(f"verbosity {level}" for level in levels), "Spearman", "minutes", title="mean words of the answers")
    moves = Table(
        "stage", "seed", "request", *outcomes[0].stages[0].moved, title="change of the measured mean from the lowest to the highest request"
    )
    for name in [stage.stage for stage in outcomes[0].stages]:
        of_stage = [(each, stage) for each in outcomes for stage in each.stages if stage.stage == name]
        for each, stage in of_stage:
            row = [f"{stage.words[level]:.1f}" if level in stage.words else "–" for level in levels]
            lengths.add_row(name, str(each.seed), *row, _number(stage.spearman_words), f"{each.minutes:.0f}")
            for request, moved in stage.moved.items():
                moves.add_row(name, str(each.seed), request, *(_number(moved.get(other)) for other in outcomes[0].stages[0].moved))
        known = [stage.spearman_words for _, stage in of_stage if stage.spearman_words is not None]
        if len(known) > 1:
            lengths.add_row(name, "all", *("" for _ in levels), f"{statistics.mean(known):.2f} ({min(known):.2f} to {max(known):.2f})", "")
    return [lengths, moves]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
