"""A run's events as one continuous history."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd

from workbench.rundir.lines import Diagnostics, Event, Json

NAN = math.nan


@dataclass(frozen=True)
class Validation:
    """One measurement on the held-out rows. `elapsed_s` is training time since the first launch, without pauses."""

    step: int
    elapsed_s: float
    metrics: Mapping[str, float]
    samples: tuple[Mapping[str, str], ...] = ()
    diagnostics: Diagnostics | None = None


@dataclass(frozen=True)
class HistoryCursor:
    """How much of a history a reader has. A reader whose generation or metrics differ starts over."""

    generation: int = 0
    metrics: int = 0
    steps: int = 0
    validations: int = 0

    @classmethod
    def parse(cls, text: str) -> HistoryCursor:
        """Raises ValueError for anything but four numbers joined by dots."""
        parts = text.split(".")
        if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) < 16 for part in parts):
            raise ValueError(f"expected a cursor of four numbers such as 0.12.400.40, got {text[:40]!r}")
        return cls(*map(int, parts))

    def __str__(self) -> str:
        return f"{self.generation}.{self.metrics}.{self.steps}.{self.validations}"


@dataclass
class History:
    """What the events say so far. Feed it with `extend`; it forgets the steps that a resume has taken back.

    `metrics` holds one column a metric, as long as `steps`, with NaN where a step has no such metric. An alarm that is over has the time of that
    under `over`; a new launch ends all. `data` is the report on the rows that were read. `live` holds the settings that may change during the run, as they are now.
    """

    steps: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    elapsed_s: list[float] = field(default_factory=list)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    validations: list[Validation] = field(default_factory=list)
    checkpoints: list[Event] = field(default_factory=list)
    references: list[Event] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    alarms: list[Event] = field(default_factory=list)
    controls: list[Event] = field(default_factory=list)
    live: dict[str, Json] = field(default_factory=dict)
    data: dict[str, Json] = field(default_factory=dict)
    phase: Event | None = None
    end: Event | None = None
    total_steps: int = 0
    generation: int = 0
    _origin: float | None = None

    def extend(self, events: Iterable[Event]) -> None:
        """Take further events in the order in which they were written; an unknown kind is passed over."""
        for event in events:
            if take := getattr(self, f"_take_{event['kind']}", None):
                take(event)

    @property
    def cursor(self) -> HistoryCursor:
        return HistoryCursor(self.generation, len(self.metrics) + len(self.validation_metrics), len(self.steps), len(self.validations))

    @property
    def validation_metrics(self) -> list[str]:
        """The names of the held-out metrics, in order of appearance."""
        return list(dict.fromkeys(name for validation in self.validations for name in validation.metrics))

    def last(self, metric: str) -> float | None:
        """The newest value of a training metric."""
        column = self.metrics.get(metric)
        return column[-1] if column else None

    def last_validation(self, metric: str) -> float | None:
        """The newest held-out value."""
        return next((v.metrics[metric] for v in reversed(self.validations) if metric in v.metrics), None)

    def frame(self) -> pd.DataFrame:
        """One row a training step: step, elapsed_s and the metrics."""
        return pd.DataFrame({"step": self.steps, "elapsed_s": self.elapsed_s, **self.metrics})

    def validation_frame(self) -> pd.DataFrame:
        """One row a validation: step, elapsed_s and the held-out metrics."""
        return pd.DataFrame([{"step": v.step, "elapsed_s": v.elapsed_s, **v.metrics} for v in self.validations])

    def _elapsed(self, time: float) -> float:
        if self._origin is None:
            self._origin = time
        return max(0.0, time - self._origin)

    def _take_state(self, event: Event) -> None:
        self.total_steps = event.get("total_steps", self.total_steps)
        self.phase = self.end = None
        self._end_alarms(event["time"])
        self.live = dict(event.get("live", {}))
        step = event.get("step")
        if step is None:
            return
        self._forget_after(step)
        spent = max([0.0, *self.elapsed_s[-1:], *(v.elapsed_s for v in self.validations[-1:])])
        self._origin = event["time"] - spent

    def _forget_after(self, step: int) -> None:
        self.references = [each for each in self.references if each["step"] <= step]
        keep = bisect.bisect_right(self.steps, step)
        validations = [v for v in self.validations if v.step <= step]
        if keep == len(self.steps) and len(validations) == len(self.validations):
            return
        self.generation += 1
        self.validations = validations
        self.checkpoints = [c for c in self.checkpoints if c.get("step", 0) <= step]
        for column in (self.steps, self.times, self.elapsed_s, *self.metrics.values()):
            del column[keep:]

    def _take_warning(self, event: Event) -> None:
        self.warnings.append(event["message"])

    def _take_alarm(self, event: Event) -> None:
        self.alarms = [alarm for alarm in self.alarms if "over" in alarm or alarm["name"] != event["name"]]  # it says the same anew
        self.alarms.append(event.copy())

    def _take_alarm_over(self, event: Event) -> None:
        self._end_alarms(event["time"], event["name"])

    def _end_alarms(self, time: float, name: str | None = None) -> None:
        for alarm in self.alarms:
            if "over" not in alarm and alarm["time"] <= time and name in (None, alarm["name"]):
                alarm["over"] = time

    def _take_control(self, event: Event) -> None:
        self.controls.append(event.copy())
        self.live |= event.get("values", {})

    def _take_data(self, event: Event) -> None:
        self.data = dict(event["report"])

    def _take_phase(self, event: Event) -> None:
        self.phase = event.copy()

    def _take_step(self, event: Event) -> None:
        self.phase = None
        if self.steps and event["step"] <= self.steps[-1]:
            self._forget_after(event["step"] - 1)
        values = numbers(event.get("metrics", {}))
        for name in values:
            if name not in self.metrics:
                self.metrics[name] = [NAN] * len(self.steps)
        self.steps.append(event["step"])
        self.times.append(event["time"])
        self.elapsed_s.append(self._elapsed(event["time"]))
        for name, column in self.metrics.items():
            column.append(values.get(name, NAN))

    def _take_validation(self, event: Event) -> None:
        self.phase = None
        if any(v.step == event["step"] for v in self.validations[-1:]):
            self.generation += 1
            self.validations.pop()
        samples = tuple(event.get("samples", ()))
        metrics = numbers(event.get("metrics", {}))
        self.validations.append(Validation(event["step"], self._elapsed(event["time"]), metrics, samples, event.get("diagnostics") or None))

    def _take_checkpoint(self, event: Event) -> None:
        self.phase = None
        self.checkpoints.append(event.copy())

    def _take_reference(self, event: Event) -> None:
        self.references = [each for each in self.references if each["version"] < event["version"]]
        self.references.append(event.copy())

    def _take_end(self, event: Event) -> None:
        self.phase = None
        self.end = event.copy()


def numbers(metrics: Mapping[str, object]) -> dict[str, float]:
    """The metrics that are numbers; "nan" and "inf" are how an event writes those."""
    values = {}
    for name, value in metrics.items():
        if isinstance(value, int | float) or value in ("nan", "inf", "-inf"):
            values[name] = float(value)
    return values
