"""What the lines of a run's files are, and the job in its status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, TypeAlias, TypedDict

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""What a JSON file can hold."""


class Job(TypedDict):
    """What a backend gave at the launch: `workbench.backends.base.Job`."""

    backend: str
    id: str
    host: str
    started: float
    mark: NotRequired[str]


class Calibration(TypedDict):
    """A bin: the mean of how sure the model was, how often it was right, of how many."""

    predicted: float
    observed: float
    count: int


class Histogram(TypedDict):
    """Counts of the chosen and of the rejected answers' scores between the edges."""

    edges: list[float]
    chosen: list[int]
    rejected: list[int]


class Lengths(TypedDict):
    """A point an answer: its tokens, its score, whether it is the chosen one."""

    tokens: list[int]
    scores: list[float]
    chosen: list[bool]


class Confusion(TypedDict):
    """How many answers that were rated a level (a row) have which likeliest level (a column); a rating between two levels counts in both, by its distance."""

    levels: list[int]
    counts: list[list[float]]


class Ratings(TypedDict):
    """An attribute's ratings by people and by the model, a point an answer.

    `bins` are means of predicted and given ratings, a bin an equal share of the answers in the order of the prediction. Of an ordinal head: `calibration` is
    how often the likeliest level is the given one, by its probability.
    """

    name: str
    rated: int
    actual: list[float]
    predicted: list[float]
    bins: NotRequired[list[Calibration]]
    calibration: NotRequired[list[Calibration]]
    confusion: NotRequired[Confusion]


class Diagnostics(TypedDict):
    """What held-out scores tell (`workbench.monitoring.score_diagnostics`): of a ranking the first three tables, of a regression the last."""

    kind: str
    calibration: list[Calibration]
    histogram: Histogram
    lengths: Lengths
    attributes: list[Ratings]


@dataclass(frozen=True)
class EventKind:
    """What stands in each event of a kind besides `seq`, `time` and `kind`; `optional`: what may."""

    fields: Sequence[str]
    help: str
    optional: Sequence[str] = ()


KINDS: Mapping[str, EventKind] = {
    "data": EventKind(("report",), "The rows were read: how many of each file, how many were dropped or truncated, and their lengths."),
    "state": EventKind(
        ("state", "step", "total_steps"),
        "The run starts, or resumes, after this step; coverage: how its steps go over the rows.",
        ("live", "coverage"),
    ),
    "phase": EventKind(("message",), "What the run does before, between or after its steps; an empty message ends it.", ("done", "total")),
    "step": EventKind(("step", "metrics"), "A step is done."),
    "validation": EventKind(("step", "metrics", "samples"), "Held-out rows were measured, and prompts answered.", ("diagnostics",)),
    "reference": EventKind(("step", "version", "digest"), "An advancing reference became the policy as it is at this step."),
    "checkpoint": EventKind(("step", "seconds", "bytes"), "A checkpoint is complete."),
    "alarm": EventKind(("name", "message", "step"), "An alarm begins; rollouts or ranks are those behind it.", ("rollouts", "ranks", "seconds")),
    "alarm_over": EventKind(("name",), "It is over.", ("step", "seconds")),
    "control": EventKind(("request", "asked", "step"), "A request of control.jsonl was read: stop, pause, unpause or set.", ("values", "attempt")),
    "warning": EventKind(("message",), "Something that does not stop the run."),
    "end": EventKind(("reason", "step"), "The run ends after this step: completed or stopped."),
}
"""The kinds of event, in about the order in which a run writes them."""


class Event(TypedDict):
    """A line of an event file. `seq`, `time` and `kind` are in every line; which of the others are says `KINDS`, and readers `get` what came later.

    Of the metrics NaN and the infinities are texts.
    """

    seq: int
    time: float
    kind: str
    state: str
    step: int
    total_steps: int
    live: dict[str, Json]
    coverage: dict[str, int]
    metrics: dict[str, float]
    samples: list[dict[str, str]]
    diagnostics: Diagnostics
    seconds: float
    bytes: int
    message: str
    done: int
    total: int
    name: str
    rollouts: list[int]
    ranks: list[str]
    request: str
    asked: float
    values: dict[str, Json]
    reason: str
    report: dict[str, Json]
    version: int
    digest: str
    attempt: int
    over: NotRequired[float]


class Request(TypedDict):
    """A line of control.jsonl; a change of settings has `values`."""

    time: float
    request: str
    values: Mapping[str, Json]
