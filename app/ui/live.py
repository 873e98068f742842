"""The live-data routes: what the charts in the browser ask for twice a second.

Who may ask is decided before: `ui.gate`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from workbench import api
from workbench.rundir import listing
from workbench.rundir.lines import Json
from workbench.rundir.store import RunDir
from workbench.views import figures, live
from workbench.views.history import HistoryCursor

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
    return FileResponse(live.PLOTLY, media_type="text/javascript", headers={"cache-control": "private, max-age=86400"})


class NoSuchRun(ValueError):
    """No folder of that name holds a run."""


def find(run_id: str) -> api.Run:
    """The run with exactly this id; a path in place of an id is never followed.

    Raises:
        NoSuchRun: there is none; Unreadable: its status is damaged, or a newer version made it.
    """
    run = RunDir(api.runs_root() / run_id)
    if run_id in (".", "..") or Path(run_id).name != run_id or not listing.is_run(run.path):
        raise NoSuchRun(f"there is no run {run_id[:100]!r}")
    match = api.Run(run)
    _ = match.status
    return match


def updates(run: api.Run, since: HistoryCursor | None, smoothing: float = 0.0, axis: figures.Axis = "step") -> dict[str, Json]:
    """What a chart lacks, as JSON, and whether the run is still running."""
    going = not run.status.state.ended
    return {**live.updates(run.dir, since, smoothing, axis).json(), "live": going}


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
