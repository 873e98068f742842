"""What the lines of a run's files are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NotRequired, TypeAlias, TypedDict

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""What a JSON file can hold."""


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


class Ratings(TypedDict):
    """An attribute's ratings by people and by the model, a point an answer."""

    name: str
    rated: int
    actual: list[float]
    predicted: list[float]


class Diagnostics(TypedDict):
    """What held-out scores tell (`workbench.monitoring.score_diagnostics`): of a ranking the first three tables, of a regression the last."""

    kind: str
    calibration: list[Calibration]
    histogram: Histogram
    lengths: Lengths
    attributes: list[Ratings]


class Event(TypedDict):
    """A line of an event file. `seq`, `time` and `kind` are in every line; which of the others are is the kind's, and readers `get` what came later. Of the metrics NaN and the infinities are texts.

    state       step, total_steps, live: the run (re)starts at this step
    step        step, metrics
    validation  step, metrics, samples, diagnostics
    checkpoint  step, seconds, bytes
    phase       message, done, total
    alarm       name, message, step, rollouts or ranks, seconds; alarm_over: name
    control     request, step, asked, values
    warning     message
    end         step, reason
    """

    seq: int
    time: float
    kind: str
    step: int
    total_steps: int
    live: dict[str, Json]
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
    over: NotRequired[float]


class Request(TypedDict):
    """A line of control.jsonl; a change of settings has `values`."""

    time: float
    request: str
    values: Mapping[str, Json]
