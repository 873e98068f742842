"""The live-data routes: what the charts in the browser ask for twice a second.

Who may ask is decided before: `ui.gate`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from workbench import api
from workbench.rundir import store
from workbench.rundir.store import RunDir
from workbench.views import History, catalogue, feed, figures, series
from workbench.views.history import HistoryCursor

PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
SMOOTH_POINTS = 400
NO_STORE = {"cache-control": "no-store"}


async def metrics(request: Request) -> Response:
    """GET /live/{run}/metrics?after=CURSOR&smoothing=0.9&axis=step: the points since the cursor; all, thinned, without one."""
    try:
        run = find(request.path_params["run"])
        after = request.query_params.get("after")
        since = HistoryCursor.parse(after) if after else None
        smoothing = _smoothing(request.query_params.get("smoothing", "0"))
        axis: figures.Axis = "time" if request.query_params.get("axis") == "time" else "step"
    except ValueError as error:
        return JSONResponse({"error": str(error)}, 404 if isinstance(error, NoSuchRun) else 400, NO_STORE)
    return JSONResponse(await run_in_threadpool(updates, run, since, smoothing, axis), headers=NO_STORE)


async def plotly_js(_: Request) -> Response:
    return FileResponse(PLOTLY, media_type="text/javascript", headers={"cache-control": "private, max-age=86400"})


class NoSuchRun(ValueError):
    """No folder of that name holds a run."""


def find(run_id: str) -> api.Run:
    """The run with exactly this id; a path in place of an id is never followed.

    Raises:
        NoSuchRun: there is none; Unreadable: its status is damaged, or a newer version made it.
    """
    run = RunDir(api.runs_root() / run_id)
    if run_id in (".", "..") or Path(run_id).name != run_id or not store.is_run(run.path):
        raise NoSuchRun(f"there is no run {run_id[:100]!r}")
    match = api.Run(run)
    _ = match.status
    return match


def updates(run: api.Run, since: HistoryCursor | None, smoothing: float = 0.0, axis: figures.Axis = "step") -> dict[str, Any]:
    """What a chart lacks. `reset` says that it must start over: at first, after a resume took steps back, and when a metric is new."""
    status = run.status
    with feed.history(run.dir) as history:
        now = history.cursor
        kept = since if since and _continues(since, now) else None
        body: dict[str, Any] = {"cursor": str(now), "reset": kept is None, "live": not status.state.ended}
        if kept is None:
            body["charts"] = [chart.__dict__ for chart in catalogue.charts([*history.metrics, *history.validation_metrics])]
        if kept is None or kept.steps < now.steps:
            body["train"] = _train(history, kept.steps if kept else 0, smoothing, axis)
        if kept is None or kept.validations < now.validations:
            body["held_out"] = _held_out(history, kept.validations if kept else 0, axis)
    return body


def _continues(since: HistoryCursor, now: HistoryCursor) -> bool:
    same = since.generation == now.generation and since.metrics == now.metrics
    return same and since.steps <= now.steps and since.validations <= now.validations


def _train(history: History, start: int, smoothing: float, axis: figures.Axis) -> dict[str, Any]:
    """By metric: raw and smooth, each the lists x and y, from step number `start` on; the newest value."""
    x = np.array(history.steps[:], dtype=float) if axis == "step" else np.array(history.elapsed_s) / 60
    curves = {}
    for name, column in history.metrics.items():
        raw = np.array(column)
        smooth = series.ema(raw, smoothing)
        curves[name] = {
            "raw": _points(x, raw, start, series.POINTS),
            "smooth": _points(x, smooth, start, SMOOTH_POINTS) if smoothing else None,
            "last": str(raw[-1]) if len(raw) and not math.isfinite(raw[-1]) else (_round(raw[-1]) if len(raw) else None),
        }
    return curves


def _held_out(history: History, start: int, axis: figures.Axis) -> dict[str, Any]:
    curves: dict[str, Any] = {}
    for validation in history.validations[start:]:
        for name, value in validation.metrics.items():
            x, y = curves.setdefault(name, ([], []))
            x.append(validation.step if axis == "step" else round(validation.elapsed_s / 60, 4))
            y.append(_round(value))
    return curves


def _points(x: np.ndarray, y: np.ndarray, start: int, limit: int) -> tuple[list[float | None], list[float | None]]:
    keep = series.thin(y[start:], limit) + start
    return [_round(value) for value in x[keep]], [_round(value) for value in y[keep]]


def _round(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _smoothing(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise ValueError(f"smoothing is a number from 0 to below 1, got {text[:40]!r}")
    return value


def routes() -> Sequence[Route]:
    """The routes for `App(…, routes=…)`."""
    return [
        Route("/live/plotly.min.js", plotly_js, methods=["GET"]),
        Route("/live/{run}/metrics", metrics, methods=["GET"]),
    ]
