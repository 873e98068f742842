"""What is served now: the checkpoints of every endpoint that answers, and why another does not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from workbench.data.targets import Targets
from workbench.jobs.checkpoints import with_checkpoint
from workbench.jobs.runs import Run
from workbench.jobs.serving import endpoint, endpoints, serve
from workbench.rundir import listing
from workbench.rundir.lines import Json
from workbench.rundir.store import RunDir
from workbench.serve.completions import ServedModel
from workbench.settings import stored
from workbench.settings.composing import SpecError, quoted
from workbench.settings.spec import compose
from workbench.steering.region import nearest_reachable
from workbench.steering.served import Served

POLL_S = 0.2
FIXED_TARGETS = "fixed_targets"
"""The pipeline in `conf/pipeline/`."""


@dataclass(frozen=True)
class Serving:
    """An endpoint: what it serves, or why it does not yet."""

    run: Run
    served: tuple[Served, ...]
    waiting: str


def serving() -> list[Serving]:
    """Every endpoint that is alive, newest first."""
    return [_serving(run) for run in endpoints()]


def serve_or_find(checkpoints: Sequence[str], overrides: Sequence[str] = ()) -> Run:
    """The living endpoint that serves these with the same settings, or a new one. Raises SpecError as `serve` does."""
    wanted = with_checkpoint(compose(["job=serve", f"job.checkpoints={quoted(list(checkpoints))}", *overrides])).with_absolute_paths()
    for run in endpoints():
        with contextlib.suppress(SpecError):  # an older version's, whose settings this one does not have
            if run.spec.job == wanted.job and run.spec.backend == wanted.backend:
                return run
    return serve(checkpoints, overrides)


def until_serving(run: Run, timeout_s: float) -> None:
    """Wait until an endpoint answers.

    Raises:
        ValueError: it has ended instead; TimeoutError.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            endpoint(run.id).models()
            return
        except (ValueError, OSError) as error:
            status = run.status
            if status.state.ended:
                raise ValueError(f"the endpoint {run.id} is {status.state}: {status.message or error}") from None
            if time.monotonic() > deadline:
                raise TimeoutError(f"the endpoint {run.id} does not answer after {timeout_s:g} s: {error}") from None
        time.sleep(POLL_S)


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
    return _targets(_served_model(endpoint_id, model).model)


def with_targets(endpoint_id: str, model: str, attributes: Mapping[str, float]) -> tuple[str, list[str]]:
    """The pipeline that trains a model which answers as a served one does with these ratings, without being asked; and what to override in it.

    The prompts are those that the served model was trained on, where its run is there; else yours to say.

    Raises:
        ValueError: as `reach` does, and where no rating is given.
    """
    served = _served_model(endpoint_id, model).model
    known = _targets(served).steering.attributes
    if not attributes:
        raise ValueError(f"set a slider: {model} takes {', '.join(known)}")
    if unknown := sorted(set(attributes) - set(known)):
        raise ValueError(f"{model} has no attribute {unknown[0]}; it takes {', '.join(known)}")
    overrides = [f"answers.job.targets={quoted([dict(attributes)])}"]
    folder = Path(served.source)
    if not (folder.is_absolute() and listing.is_run(folder.parent.parent)):
        return FIXED_TARGETS, [*overrides, f"answers.model.source={quoted(served.source)}", f"sft.model.source={quoted(served.source)}"]
    experiment = stored.experiment(RunDir(folder.parent.parent))
    overrides += [
        f"answers.job.checkpoint={quoted(f'{folder.parent.parent.name}:{folder.name}')}",
        f"sft.model.source={quoted(experiment.model.source)}",
    ]
    return FIXED_TARGETS, overrides + ([f"answers.data.train={quoted(experiment.data.train)}"] if experiment.data.train else [])


def _served_model(endpoint_id: str, model: str) -> Served:
    run = next((run for run in endpoints() if run.id == endpoint_id), None)
    if run is None:
        raise ValueError(f"no endpoint {endpoint_id[:100]!r} is alive")
    served = next((each for each in _models(run.id, run.status.attempt) if each.model.id == model), None)
    if served is None:
        raise ValueError(f"endpoint {run.id} serves no {model[:100]!r}")
    return served


def _targets(model: ServedModel) -> Targets:
    if model.targets is None:
        raise ValueError(f"{model.id} was not trained with attributes (data.steering)")
    return model.targets


def _serving(run: Run) -> Serving:
    try:
        return Serving(run, _models(run.id, run.status.attempt), "")
    except (ValueError, OSError) as error:
        return Serving(run, (), str(error))


@lru_cache(maxsize=64)
def _models(run_id: str, _attempt: int) -> tuple[Served, ...]:
    """They stay the same as long as the endpoint lives. Raises ValueError or OSError while it does not answer, which is not kept."""
    return tuple(Served(run_id, model) for model in endpoint(run_id).models())
