"""Pipelines: launching and finding them, how far their stages are, and all that can be asked of one."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import cast

from workbench.backends import base as backends
from workbench.backends import local
from workbench.backends.base import Task
from workbench.jobs import plans
from workbench.jobs.plans import Plan
from workbench.jobs.runs import Run
from workbench.jobs.sequence import advance, status_of
from workbench.jobs.stage import waits_for
from workbench.rundir import listing, store
from workbench.rundir import pipelines as folders
from workbench.rundir.lines import Job
from workbench.rundir.opening import Unreadable
from workbench.rundir.owned import Handle
from workbench.rundir.permission import changes
from workbench.rundir.pipelines import PipelineDir
from workbench.rundir.store import RunDir, State, Status
from workbench.settings import pipeline as pipelines

WAITS = (State.CREATED, State.QUEUED, State.PREEMPTED)
SEQUENCER_DIED = "the process that launches its stages in turn died; resume continues"


@dataclass(frozen=True)
class StageStatus:
    """A stage, the id of its run, and how far it is. `run` and `status` are None while it is not launched; `state` is that of its run, None while it waits.

    `message` says why it waits, failed or could not be launched; `blocked` whether it will not start because a stage before it ended early.
    """

    name: str
    run_id: str
    needs: tuple[str, ...]
    run: Run | None
    status: Status | None
    state: State | None
    message: str
    blocked: bool = False


@dataclass(frozen=True)
class PipelineStatus:
    """How a pipeline is, as its stages tell. `step` is how many are complete."""

    state: State
    message: str
    stages: tuple[StageStatus, ...]
    attempt: int
    created: float
    updated: float
    orphaned: bool = False
    """Whether the process is gone that would launch the stages which are left: resume starts another, also while a stage runs."""

    @property
    def step(self) -> int:
        return sum(stage.state == State.COMPLETED for stage in self.stages)


@dataclass(frozen=True)
class Pipeline(Handle[PipelineDir]):
    """Jobs in sequence. All that reads or changes it raises Unreadable, a ValueError, where its folder is damaged; all that changes it also ReadOnly."""

    @cached_property
    def plan(self) -> Plan:
        """Its stages and their settings. It never changes."""
        return plans.read(self.dir)

    @property
    def status(self) -> PipelineStatus:
        """How far each stage is, and what follows from that for the whole."""
        known = self.dir.status
        stages: dict[str, StageStatus] = {}
        for name in self.plan.stages:
            stages[name] = self._stage(name, stages, known)
        orphaned = self._orphaned(tuple(stages.values()), known)
        state, message = self._state(tuple(stages.values()), known, orphaned)
        updated = max([known.updated, *(each.status.updated for each in stages.values() if each.status)])
        return PipelineStatus(state, message, tuple(stages.values()), known.attempt, known.created, updated, orphaned)

    def _stage(self, name: str, before: dict[str, StageStatus], known: folders.Status) -> StageStatus:
        plan, problem = self.plan.stages[name], known.problems.get(name, "")
        run = RunDir(self.dir.runs / plan.run)
        status = status_of(run)
        made = Run(run) if listing.is_run(run.path) else None
        state, message = (status.state, status.message) if status else (None, problem)
        if status and status.state.ended and name in known.resuming:
            return StageStatus(name, plan.run, plan.needs, made, status, None, "is resumed in its turn")
        if problem and (status is None or status.state.ended):
            return StageStatus(name, plan.run, plan.needs, made, status, State.FAILED, problem)
        if state in (None, State.STOPPED, State.QUEUED):
            ended = [need for need in plan.needs if _ended_early(before[need])]
            started = bool(status and status.step)
            if ended and not started:
                return StageStatus(name, plan.run, plan.needs, made, status, state, waits_for(ended[0], _cause(before, ended[0])), blocked=True)
            if status is None:
                waiting = [need for need in plan.needs if before[need].state != State.COMPLETED]
                message = waits_for(waiting[0], None) if waiting else "waits for its turn"
        return StageStatus(name, plan.run, plan.needs, made, status, state, message)

    def _state(self, stages: Sequence[StageStatus], known: folders.Status, orphaned: bool) -> tuple[State, str]:
        states = [stage.state for stage in stages if not stage.blocked]
        live = [state for state in states if state and not state.ended]
        failed = next((stage for stage in stages if stage.state == State.FAILED and not stage.blocked), None)
        because = f"{failed.name}: {failed.message.partition(chr(10))[0]}" if failed else ""
        if all(state == State.COMPLETED for state in states) and len(states) == len(stages):
            return State.COMPLETED, ""
        if live:
            state = State.STOPPING if known.stopping else State.QUEUED if all(each in WAITS for each in live) else State.RUNNING
            return state, because or (SEQUENCER_DIED if orphaned else "")
        if failed:
            return State.FAILED, because
        for state in (State.KILLED, State.STOPPED):
            if ended := next((stage for stage in stages if stage.state == state and not stage.blocked), None):
                return state, f"{ended.name} was {state}; resume continues with it"
        if known.stopping:
            return State.STOPPED, "stopped; resume continues with the next stage"
        return (State.FAILED, SEQUENCER_DIED) if orphaned else (State.RUNNING if known.job else State.QUEUED, "")

    @staticmethod
    def _orphaned(stages: Sequence[StageStatus], known: folders.Status) -> bool:
        """Whether stages are left to be launched, and whoever would launch them is gone, or never began."""
        if known.stopping or all(stage.state or stage.blocked for stage in stages):
            return False
        if known.job:
            return local.look(backends.Job(**known.job)).alive is False
        return time.time() - known.updated > LAUNCH_S

    @changes
    def stop(self) -> None:
        """Launch no further stage, and stop those that run: each saves a checkpoint and ends. Raises ValueError where it has ended."""
        with self.dir.locked():
            status = self.status
            if status.state.ended:
                raise ValueError(f"pipeline {self.id} has already {'been killed' if status.state == State.KILLED else status.state}")
            self.dir.update(stopping=True)
            for stage in reversed(status.stages):  # those that wait in a queue first: they would be cancelled for what they wait for
                if stage.run and stage.status and not stage.status.state.ended:
                    _stop(stage.run)

    @changes
    def resume(self) -> None:
        """Continue with the stages that ended early, each from its latest valid checkpoint, and then with those after them.

        Raises:
            ValueError: it is still running or is complete; or a stage on a scheduler's nodes could not be submitted.
        """
        with self.dir.locked():
            status = self.status
            if status.state == State.COMPLETED or not (status.state.ended or status.orphaned):
                raise ValueError(f"pipeline {self.id} is {status.state}; only a stopped, killed or failed one can be resumed")
            ended = tuple(each.name for each in status.stages if each.status and each.status.state.ended and each.status.state != State.COMPLETED)
            self.dir.update(attempt=self.dir.status.attempt + 1, stopping=False, problems={}, resuming=ended, job=None)
            _begin(self.dir, self.plan)

    def wait(self, timeout_s: float | None = None) -> PipelineStatus:
        """Block until it has ended. Raises TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (status := self.status).state.ended:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"pipeline {self.id} is still {status.state} after {timeout_s} s")
            time.sleep(0.2)
        return status


LAUNCH_S = 30.0
"""How long whoever launches a pipeline may take until the first stage, or the process that launches stages, is there, in seconds."""


def _ended_early(stage: StageStatus) -> bool:
    return stage.blocked or (stage.state is not None and stage.state.ended and stage.state != State.COMPLETED)


def _cause(stages: dict[str, StageStatus], name: str) -> State | None:
    """How a stage ended that others wait for; None where it never began."""
    return None if stages[name].blocked else stages[name].state


def _stop(run: Run) -> None:
    try:
        run.stop()
    except ValueError:
        if not run.status.state.ended:  # it had not ended meanwhile
            raise


@changes
def submit_pipeline(name: str, overrides: Sequence[str] = ()) -> Pipeline:
    """Check every stage of a pipeline, make its folder and launch what can be launched now. Returns at once; it continues without the caller.

    Args:
        name: of conf/pipeline, or the path of a YAML.
        overrides: as on the command line of `workbench run`; `sft.algorithm.lr=1e-4` is for one stage.

    Raises:
        SpecError: no such pipeline, a wrong word or setting, or what a stage needs is not there; nothing was made.
        OSError: the folder could not be made.
        ValueError: a scheduler refused a stage; the pipeline can be resumed.
    """
    plan = plans.plan(name, overrides)
    folder = folders.create(listing.runs_root(), store.new_run_id(plan.name), plan.to_yaml())
    with folder.locked():
        _begin(folder, plan)
    return Pipeline(folder)


def _begin(folder: PipelineDir, plan: Plan) -> None:
    """Submit what a scheduler queues, and leave the rest to a process of its own. The folder is locked. Raises ValueError for what could not be submitted."""
    chained = all(plan.experiment(stage).backend.chains for stage in plan.stages)
    if not chained or advance(folder):
        attempt = folder.status.attempt
        command = (sys.executable, "-m", "workbench.jobs.sequencer", str(folder.path), str(attempt))
        job = local.launch(Task(folder.path, (), command, local.Config(), attempt))
        folder.update(job=cast(Job, asdict(job)))
    elif problems := folder.status.problems:
        lines = "\n".join(f"{stage}: {problem}" for stage, problem in problems.items())
        raise ValueError(f"pipeline {folder.id} could not be launched as a whole; `workbench pipeline resume {folder.id}` tries again:\n{lines}")


def list_pipelines() -> list[Pipeline]:
    """Every pipeline, newest first."""
    return [Pipeline(folder) for folder in folders.list_pipelines(listing.runs_root())]


def pipeline(pipeline_id: str) -> Pipeline:
    """The pipeline with this id, or the only one whose id begins or ends so; `latest` is the newest.

    Raises:
        ValueError: none or several; the message names the newest ones.
    """
    return Pipeline(folders.find(pipeline_id))


def stage_of(run: Run) -> tuple[Pipeline, str] | None:
    """The pipeline and the stage that a run is; None for a run of none, or where its pipeline's folder is gone."""
    try:
        folder, stage = folders.pipeline_of(run.dir), folders.stage_of(run.dir)
    except Unreadable:
        return None
    return (Pipeline(folder), stage[1]) if folder and stage else None


shipped = pipelines.shipped
