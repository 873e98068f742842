"""What is served now: the checkpoints of every endpoint that answers, and why another does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from workbench.data.targets import Targets
from workbench.jobs.serving import endpoint, endpoints
from workbench.jobs.runs import Run
from workbench.rundir.lines import Json
from workbench.steering.region import nearest_reachable
from workbench.steering.served import Served


@dataclass(frozen=True)
class Serving:
    """An endpoint: what it serves, or why it does not yet."""

    run: Run
    served: tuple[Served, ...]
    waiting: str


def serving() -> list[Serving]:
    """Every endpoint that is alive, newest first."""
    return [_serving(run) for run in endpoints()]


def reach(endpoint_id: str, model: str, requested: Mapping[str, float]) -> dict[str, Json]:
    """Whether enough training rows of a served model have ratings like the requested ones, how many, and the nearest setting that they reach.

    Raises:
        ValueError: the endpoint does not serve, or not this model, or the model was not trained with attributes.
    """
    near = nearest_reachable(targets_of(endpoint_id, model), requested)
    nearest: Json = dict(near.nearest) if near.nearest is not None else None
    return {"reachable": near.reachable, "rows": near.rows, "nearest": nearest, "nearest_rows": near.nearest_rows, "reason": near.reason}


def targets_of(endpoint_id: str, model: str) -> Targets:
    """The attributes that a served model was trained with. Raises ValueError as `reach` does."""
    run = next((run for run in endpoints() if run.id == endpoint_id), None)
    if run is None:
        raise ValueError(f"no endpoint {endpoint_id[:100]!r} is alive")
    served = next((each for each in _models(run.id, run.status.attempt) if each.model.id == model), None)
    if served is None:
        raise ValueError(f"endpoint {run.id} serves no {model[:100]!r}")
    if served.model.targets is None:
        raise ValueError(f"{model} was not trained with attributes (data.steering)")
    return served.model.targets


def _serving(run: Run) -> Serving:
    try:
        return Serving(run, _models(run.id, run.status.attempt), "")
    except (ValueError, OSError) as error:
        return Serving(run, (), str(error))


@lru_cache(maxsize=64)
def _models(run_id: str, _attempt: int) -> tuple[Served, ...]:
    """They stay the same as long as the endpoint lives. Raises ValueError or OSError while it does not answer, which is not kept."""
    return tuple(Served(run_id, model) for model in endpoint(run_id).models())
