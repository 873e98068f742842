"""What live charts lack: a run's curves since a cursor, as JSON for the app and as a header with buffers for a notebook; and the charts' own files."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import plotly

from workbench.rundir.lines import Json
from workbench.rundir.store import RunDir
from workbench.views import catalogue, feed, series
from workbench.views.catalogue import Chart
from workbench.views.figures import Axis
from workbench.views.history import History, HistoryCursor

STATIC = Path(__file__).parent / "static"
PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
SMOOTH_POINTS = 400


@dataclass(frozen=True)
class Points:
    """A piece of a line; x in steps or minutes of training."""

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Curve:
    """A metric's new points, smoothed ones where that was asked for, and its newest value."""

    raw: Points
    smooth: Points | None
    last: float | None


@dataclass(frozen=True)
class Update:
    """What a reader lacks. With `reset` it starts over, and `charts` says what it draws; None is nothing new."""

    cursor: str
    reset: bool
    charts: Sequence[Chart] | None = None
    train: Mapping[str, Curve] | None = None
    held_out: Mapping[str, Points] | None = None

    @property
    def empty(self) -> bool:
        return not self.reset and self.train is None and self.held_out is None

    def json(self) -> dict[str, Json]:
        """As JSON: lists of numbers of six digits, null where a number is not finite."""
        body: dict[str, Json] = {"cursor": self.cursor, "reset": self.reset}
        if self.charts is not None:
            body["charts"] = [chart.__dict__ for chart in self.charts]
        if self.train is not None:
            body["train"] = {name: _json_curve(curve) for name, curve in self.train.items()}
        if self.held_out is not None:
            body["held_out"] = {name: _json_points(points) for name, points in self.held_out.items()}
        return body

    def packed(self) -> tuple[dict[str, object], list[bytes]]:
        """As a header and two buffers: every x as float64, every y as float32, NaN for a gap.

        In the header `[x, y, count]` stands for the points: where they begin in each buffer, in numbers.
        """
        pack = _Pack()
        header: dict[str, object] = {"cursor": self.cursor, "reset": self.reset}
        if self.charts is not None:
            header["charts"] = [chart.__dict__ for chart in self.charts]
        if self.train is not None:
            header["train"] = {
                name: {"raw": pack.add(curve.raw), "smooth": curve.smooth and pack.add(curve.smooth), "last": _last(curve.last)}
                for name, curve in self.train.items()
            }
        if self.held_out is not None:
            header["held_out"] = {name: pack.add(points) for name, points in self.held_out.items()}
        return header, pack.buffers()


def updates(run: RunDir, since: HistoryCursor | None, smoothing: float = 0.0, axis: Axis = "step") -> Update:
    """What a chart lacks. `reset` says that it must start over: at first, after a resume took steps back, and when a metric is new."""
    with feed.history(run) as history:
        now = history.cursor
        kept = since if since and _continues(since, now) else None
        charts = catalogue.charts([*history.metrics, *history.validation_metrics]) if kept is None else None
        train = held_out = None
        if kept is None or kept.steps < now.steps:
            train = _train(history, kept.steps if kept else 0, smoothing, axis)
        if kept is None or kept.validations < now.validations:
            held_out = _held_out(history, kept.validations if kept else 0, axis)
        return Update(str(now), kept is None, charts, train, held_out)


def compared(runs: Mapping[str, RunDir], metric: str, held_out: bool, since: str | None, smoothing: float = 0.0, axis: Axis = "step") -> Update:
    """What a chart of one metric of several runs lacks, a line a run under its name in `runs`."""
    cursors, curves, resets = [], {}, since is None
    before = [HistoryCursor.parse(each) for each in since.split("|")] if since else [None] * len(runs)
    for (name, run), cursor in zip(runs.items(), before, strict=True):
        with feed.history(run) as history:
            now = history.cursor
            cursors.append(str(now))
            kept = cursor if cursor and _continues(cursor, now) else None
            resets = resets or kept is None
            if held_out:
                points = _held_out(history, kept.validations if kept else 0, axis).get(metric)
                curve = points and Curve(points, None, points.y[-1])
            else:
                start = kept.steps if kept else 0
                curve = _curve(history.metrics[metric], _x(history, start, axis), start, smoothing) if metric in history.metrics else None
        if curve is not None and len(curve.raw.x):
            curves[name] = curve
    if resets and since is not None:
        return compared(runs, metric, held_out, None, smoothing, axis)
    known = catalogue.known(metric)
    group = "Held-out rows" if held_out else "Training"
    chart = Chart("compare", known.heading, known.unit, tuple((name, name) for name in runs), False, group, not held_out, True, known.help)
    return Update("|".join(cursors), resets, [chart] if resets else None, curves or None)


def text_of(name: str) -> str:
    """One of the charts' own files: charts.js or charts.css."""
    return STATIC.joinpath(name).read_text()


@lru_cache(maxsize=1)
def plotly_gzip() -> bytes:
    """plotly.js for a page that has none: a third of its size."""
    return gzip.compress(PLOTLY.read_bytes(), 6)


@dataclass
class _Pack:
    xs: list[np.ndarray] = field(default_factory=list)
    ys: list[np.ndarray] = field(default_factory=list)
    x_size: int = 0
    y_size: int = 0
    known: dict[int, int] = field(default_factory=dict)

    def add(self, points: Points) -> list[int]:
        if id(points.x) not in self.known:  # curves that are not thinned share their x; `xs` keeps it, so that no other gets its id
            self.known[id(points.x)] = self.x_size
            self.xs.append(points.x)
            self.x_size += len(points.x)
        start = self.y_size
        self.ys.append(points.y)
        self.y_size += len(points.y)
        return [self.known[id(points.x)], start, len(points.y)]

    def buffers(self) -> list[bytes]:
        xs = np.concatenate(self.xs) if self.xs else np.array([])
        ys = np.concatenate(self.ys) if self.ys else np.array([])
        ys = np.where(np.isfinite(ys), ys, np.nan)
        return [xs.astype("<f8").tobytes(), ys.astype("<f4").tobytes()]


def _continues(since: HistoryCursor, now: HistoryCursor) -> bool:
    same = since.generation == now.generation and since.metrics == now.metrics
    return same and since.steps <= now.steps and since.validations <= now.validations


def _train(history: History, start: int, smoothing: float, axis: Axis) -> dict[str, Curve]:
    """By metric: raw and smooth points from step number `start` on."""
    x = _x(history, start, axis)
    return {name: _curve(column, x, start, smoothing) for name, column in history.metrics.items()}


def _x(history: History, start: int, axis: Axis) -> np.ndarray:
    return np.array(history.steps[start:], dtype=float) if axis == "step" else np.array(history.elapsed_s[start:]) / 60


def _curve(column: Sequence[float], x: np.ndarray, start: int, smoothing: float) -> Curve:
    smooth = _points(x, series.ema_since(column, start, smoothing), SMOOTH_POINTS) if smoothing else None
    return Curve(_points(x, np.array(column[start:]), series.POINTS), smooth, column[-1] if column else None)


def _held_out(history: History, start: int, axis: Axis) -> dict[str, Points]:
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for validation in history.validations[start:]:
        for name, value in validation.metrics.items():
            x, y = curves.setdefault(name, ([], []))
            x.append(validation.step if axis == "step" else round(validation.elapsed_s / 60, 4))
            y.append(value)
    return {name: Points(np.array(x, dtype=float), np.array(y)) for name, (x, y) in curves.items()}


def _points(x: np.ndarray, y: np.ndarray, limit: int) -> Points:
    if len(y) <= limit:
        return Points(x, y)
    keep = series.thin(y, limit)
    return Points(x[keep], y[keep])


def _json_curve(curve: Curve) -> dict[str, Json]:
    return {"raw": _json_points(curve.raw), "smooth": curve.smooth and _json_points(curve.smooth), "last": _last(curve.last)}


def _json_points(points: Points) -> list[Json]:
    return [[_round(value) for value in points.x.tolist()], [_round(value) for value in points.y.tolist()]]


def _last(value: float | None) -> Json:
    """A number, or the word for one that is not finite."""
    return None if value is None else _round(value) if math.isfinite(value) else str(value)


def _round(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
