"""Launching the stages of a pipeline, each when its turn has come: which that is, follows from the runs that are there.

Stages of a backend whose jobs wait for each other in the queue (`Config.chains`) are all submitted at once, each after those that it needs. On other
backends they run in turn, in the plan's order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

from workbench.backends import base as backends
from workbench.jobs import launch, plans
from workbench.jobs.launch import AsStage
from workbench.jobs.observe import INTERRUPTED, ended, observed_status
from workbench.jobs.plans import Plan
from workbench.rundir import listing, pipelines
from workbench.rundir.lines import Job
from workbench.rundir.pipelines import PipelineDir
from workbench.rundir.store import RunDir, State, Status

PATIENCE_S, OTHERS_PATIENCE_S = {"local": 10.0}, 150.0
"""How long a launch may take until its job is noted, by backend and of others, in seconds."""

Turn: TypeAlias = Literal["now", "later", "never"]
"""Of a stage that runs in turn with others: all before it are complete; one is not yet; one failed."""


@dataclass
class _Seen:
    """What one pass over the stages has seen so far, by stage."""

    done: set[str]
    live: dict[str, Status]
    blocked: set[str]
    waiting: set[str]


def status_of(run: RunDir) -> Status | None:
    """A stage's; None where its run was not created yet, or only created. Raises Unreadable."""
    status = observed_status(run) if listing.is_run(run.path) else None
    return None if status is None or status.state == State.CREATED else status


def advance(folder: PipelineDir) -> bool:
    """Launch the stages whose turn has come. Call it while the folder is locked. Returns whether a later call may have more to launch.

    A stage that cannot be launched is noted in the pipeline's status, with the cause.
    """
    if folder.status.stopping:
        return False
    plan, seen = plans.read(folder), _Seen(set(), {}, set(), set())
    turn: Turn = "now"
    for name, stage in plan.stages.items():
        run, config = RunDir(folder.runs / stage.run), plan.experiment(name).backend
        status = status_of(run)
        if status and not status.state.ended:
            status = _with_job(run, status, config)
        _take(folder, plan, name, status, seen, "now" if config.chains else turn)
        if not config.chains and name not in seen.done:
            turn = "never" if name in seen.blocked else "later"
    return bool(seen.waiting)


def _take(folder: PipelineDir, plan: Plan, name: str, status: Status | None, seen: _Seen, turn: Turn) -> None:
    """Look at one stage, and launch it where its turn has come."""
    now, needs = folder.status, plan.stages[name].needs
    if status and status.state == State.COMPLETED:
        seen.done.add(name)
    elif status and not status.state.ended:
        seen.live[name] = status
    elif turn == "never" or name in now.problems or seen.blocked.intersection(needs) or (status and not _again(status, name in now.resuming)):
        seen.blocked.add(name)
    elif turn == "later" or (after := _after(plan, name, seen)) is None:
        seen.waiting.add(name)
    elif why := _launch(folder, plan, name, status, after):
        folder.update(problems={**now.problems, name: why}, resuming=tuple(each for each in now.resuming if each != name))
        seen.blocked.add(name)
    else:
        run = RunDir(folder.runs / plan.stages[name].run)
        folder.update(resuming=tuple(each for each in now.resuming if each != name))
        seen.live[name] = run.status


def _again(ended: Status, resuming: bool) -> bool:
    """Whether an ended run is launched again: its pipeline was resumed, or nobody but its launcher ended."""
    return resuming or ended.message == INTERRUPTED


def _after(plan: Plan, name: str, seen: _Seen) -> tuple[str, ...] | None:
    """The jobs that a stage's job is queued after; None where it has to wait here for a stage that it needs."""
    config, jobs = plan.experiment(name).backend, list[str]()
    for need in plan.stages[name].needs:
        if need in seen.done:
            continue
        job = seen.live[need].job if need in seen.live else None
        if not config.chains or job is None or job["backend"] != config.name:
            return None
        jobs.append(job["id"])
    return tuple(jobs)


def _launch(folder: PipelineDir, plan: Plan, name: str, status: Status | None, after: tuple[str, ...]) -> str:
    """Launch a stage, or resume it where its run has a status. Returns why it could not be; empty where it was."""
    stage, config = plan.stages[name], plan.experiment(name).backend
    run = RunDir(folder.runs / stage.run)
    try:
        if status and status.job is None and (lost := _lost_job(run, config)):
            backends.find(config.name).kill(lost)
        if status is None:
            as_stage = AsStage(stage.run, pipelines.mark(folder.id, name), after, stage.uses if after else ())
            launch.start_stage(plan.experiment(name), as_stage)
        else:
            launch.resume(run, status.attempt + 1, after=after)
    except (ValueError, OSError) as error:
        return str(error)
    return ""


def _with_job(run: RunDir, status: Status, config: backends.Config) -> Status:
    """Of a launch that was interrupted before its job was noted: with the job where the backend has one, else as failed, to be launched again.

    Whoever launches a stage of the pipeline holds its lock; somebody may just be resuming the run by itself, which takes no longer than `PATIENCE_S`.
    """
    if status.job is not None or status.state != State.QUEUED or run.silence_s < PATIENCE_S.get(config.name, OTHERS_PATIENCE_S):
        return status
    try:
        job = _lost_job(run, config)
    except OSError:  # a scheduler that does not answer: the next pass asks again
        return status
    if job is not None:
        return run.update(job=cast(Job, asdict(job)))
    return ended(run, status, State.FAILED, INTERRUPTED)


def _lost_job(run: RunDir, config: backends.Config) -> backends.Job | None:
    """The job of a launch that nobody noted. Raises OSError where the backend cannot be asked."""
    find: Callable[[Path], backends.Job | None] | None = getattr(backends.find(config.name), "launched", None)
    return find(run.path) if find else None
