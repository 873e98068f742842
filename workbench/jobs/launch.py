"""From an experiment to a run directory with a driver: what is checked first, what is settled, and the launch itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import cast

from workbench.backends import base as backends
from workbench.backends import forking, local
from workbench.backends.base import Finding
from workbench.jobs import inputs
from workbench.jobs import preflight as preflights
from workbench.jobs.checkpoints import KEY, with_checkpoint
from workbench.jobs.problems import needed
from workbench.jobs.sources import check_sources
from workbench.processes import WARM, startup
from workbench.processes.driver import task_of
from workbench.rundir import listing, opening, store
from workbench.rundir import once as onces
from workbench.rundir.events import EventWriter
from workbench.rundir.lines import Job
from workbench.rundir.permission import changes
from workbench.rundir.store import FORMAT, STAGE, RunDir, State
from workbench.settings import composing, placement, stored
from workbench.settings.composing import SpecError
from workbench.settings.spec import RESUMABLE, Experiment, changed


@changes
def start(experiment: Experiment, once: str = "") -> RunDir:
    """Create the run directory and launch its driver. Returns at once; the run continues without the caller.

    Args:
        once: a name of the user's. The run of this user that was launched with it is given back, running or ended, and nothing is launched again.

    Raises:
        SpecError: a function that the settings name is not there, or no node could run it (see `preflight`); nothing was made. Or the run that was
            launched once computes something else.
        OSError: the run directory or the driver could not be made, as on a full disk; the message tells which. No folder is left, or a failed run
            that can be resumed.
    """
    if not once:
        return _start(experiment)
    with onces.one_launcher(listing.runs_root()):
        run = onces.launched(listing.runs_root(), once)
        if run is None:
            return _start(experiment, once)
        if differing := _differing(with_checkpoint(experiment).with_absolute_paths(), stored.experiment(run)):
            raise SpecError([(key, f"is {now!r}; once={once!r} was launched as {run.id} with {was!r}") for key, now, was in differing])
        if run.status.state == State.CREATED:  # whoever created it ended before the launch
            launch(run, _task(run, stored.experiment(run), attempt=1))
        return run


@dataclass(frozen=True)
class AsStage:
    """A run that is a stage of a pipeline: its id and its mark, the jobs that it waits for in the queue, and outputs of other stages that are to come."""

    run_id: str
    mark: str
    after: Sequence[str] = ()
    to_come: Sequence[str] = ()


@changes
def start_stage(experiment: Experiment, stage: AsStage) -> RunDir:
    """As `start`, for a stage of a pipeline, under its id. A run that was created under it and never launched is launched.

    Raises:
        SpecError, OSError: as `start`; FileExistsError where the run was launched before.
    """
    run = RunDir(listing.runs_root() / stage.run_id)
    if listing.is_run(run.path) and run.status.state == State.CREATED:
        launch(run, _task(run, stored.experiment(run), 1, stage.after))
        return run
    return _start(experiment, stage=stage)


def _start(experiment: Experiment, once: str = "", stage: AsStage | None = None) -> RunDir:
    experiment, warnings = checked(experiment, stage.to_come if stage else ())
    named = {"run_id": stage.run_id, "stage": stage.mark} if stage else {}
    run = store.create(listing.runs_root(), experiment.name, experiment.to_yaml(), once, **named)
    try:
        _keep_warnings(run, warnings)
        inputs.keep(run, experiment)
        launch(run, _task(run, experiment, 1, stage.after if stage else ()))
    except OSError:
        if run.status.state == State.CREATED:
            store.discard(run)
        raise
    return run


def _task(run: RunDir, experiment: Experiment, attempt: int, after: Sequence[str] = ()) -> backends.Task:
    """What the backend is asked to run; of a pipeline's stage the driver looks first whether the stages before it are complete."""
    task = task_of(run, experiment, attempt)
    if not opening.is_file(run.path / STAGE):
        return task
    return replace(task, driver=(sys.executable, "-m", "workbench.jobs.stage", str(run.path)), after=tuple(after))


def _differing(wanted: Experiment, launched: Experiment) -> list[tuple[str, object, object]]:
    """The settings that decide what a run computes and that are not those it was launched with: key, wanted, launched."""
    now, was = (dict(composing.leaves(experiment.model_dump(mode="json"))) for experiment in (wanted, launched))
    settled = ("algorithm.served",) if placement.is_open(wanted.algorithm) else ()
    free = (*RESUMABLE, *settled)
    keys = [key for key in {**was, **now} if not any(key == name or key.startswith(f"{name}.") for name in free)]
    return [(key, now.get(key), was.get(key)) for key in keys if now.get(key) != was.get(key)]


@changes
def resume(run: RunDir, attempt: int, overrides: Sequence[str] = (), changed_data: bool = False, after: Sequence[str] = ()) -> None:
    """Launch an ended run again as this attempt, from its latest valid checkpoint, with other settings where the overrides say so.

    Args:
        after: jobs of the same backend that have to be complete first.

    Raises:
        ValueError: the run is still running, a file that it needs cannot be read, or a data file or the model has changed and `changed_data` does not
            allow that;
            SpecError for an override that a resume cannot make, or what no node could run.
    """
    if wrong := needed(run):
        raise ValueError(f"run {run.id} cannot be resumed:\n" + "\n".join(map(str, wrong)))
    experiment = changed(stored.experiment(run), overrides)
    if not changed_data and (differing := [*inputs.changed(run), *startup.changed_weights(run, experiment)]):
        way = "it would continue on other rows or other weights; put the files back, or resume with --changed-data (changed_data=True)"
        raise ValueError(f"run {run.id} cannot be resumed, {way}:\n" + "\n".join(differing))
    warnings = _warnings(experiment)
    if overrides or run.status.format < FORMAT:
        run.change_spec(attempt, experiment.to_yaml())
    _keep_warnings(run, warnings)
    if changed_data:
        inputs.keep(run, experiment)
        startup.accept_other_weights(run)
    launch(run, _task(run, experiment, attempt, after))


@changes
def launch(run: RunDir, task: backends.Task) -> None:
    """Queue a new or an ended run and start its driver.

    Raises:
        ValueError: the run is still running, or someone else has just launched it.
        OSError: the backend could not start it, or its job could not be noted; the run is failed, and nothing of it is still running.
    """
    status = run.begin_attempt("waiting for the backend")
    if status is None:
        raise ValueError(f"run {run.id} is already running")
    backend = backends.find(task.config.name)
    try:
        job = backend.launch(replace(task, attempt=status.attempt))
    except OSError as error:
        run.update(state=State.FAILED, message=f"the backend could not start: {error}")
        raise
    try:
        run.update(job=cast(Job, asdict(job)))
    except OSError as error:
        backend.kill(job)
        run.update(state=State.FAILED, message=f"its job could not be noted: {error}")
        raise


@changes
def preflight(experiment: Experiment, on_node: bool = False) -> list[Finding]:
    """What would keep the experiment from starting, without submitting it; with `on_node` also from a try on a node, which waits in the queue.

    Raises:
        ValueError: a function that the settings name is not there; or `on_node` where the backend has no nodes.
    """
    return preflights.check(_settled(experiment), listing.runs_root(), on_node)


@changes
def keep_warm(*modules: str) -> None:
    """From now on this process's runs on this machine begin at once: a server that has imported what they need, and these, forks them. Returns at once."""
    forking.own((*WARM, *modules))


def script(experiment: Experiment) -> str:
    """The batch script that `start` would hand in now; empty where the backend has none."""
    return preflights.script(_settled(experiment), listing.runs_root())


def checked(experiment: Experiment, to_come: Sequence[str] = ()) -> tuple[Experiment, list[Finding]]:
    """The experiment as its run keeps it, and the warnings of the quick checks. What is `to_come` counts as there: paths, and ids of runs with checkpoints.

    Raises:
        SpecError: what keeps it from being launched.
    """
    experiment = _settled(experiment, to_come)
    return experiment, _warnings(experiment, to_come)


def _settled(experiment: Experiment, to_come: Sequence[str] = ()) -> Experiment:
    """As a run keeps it: its sources can be read and are named from the root, and what was left open is settled. Raises SpecError for those that cannot."""
    if not _names(experiment, KEY, to_come):
        experiment = with_checkpoint(experiment)
    if problems := [(key, what) for key, what in check_sources(experiment).problems if not _names(experiment, key, to_come)]:
        raise SpecError(problems)
    experiment = experiment.with_absolute_paths()
    if not placement.is_open(experiment.algorithm):
        return experiment
    here = local.survey()
    return experiment.settled(has_gpus=bool(here.nodes[0].gpus or here.error))


def _names(experiment: Experiment, key: str, outputs: Sequence[str]) -> bool:
    """Whether the setting with this key, or one below it, names one of the outputs."""
    if not outputs:
        return False
    values = [str(value) for name, value in composing.leaves(experiment.model_dump(mode="json")) if name == key or name.startswith(f"{key}.")]
    return any(output in value for value in values for output in outputs)


def _warnings(experiment: Experiment, to_come: Sequence[str] = ()) -> list[Finding]:
    """Those of the quick checks; none for this machine, where the start itself tells within seconds. Raises SpecError for an error."""
    problems = [] if experiment.backend.name == "local" else preflights.quick(experiment, listing.runs_root())
    problems = [each for each in problems if not (each.key and _names(experiment, each.key, to_come))]
    if errors := [(each.key, f"{each.name}: {each.message}") for each in problems if each.level == "error"]:
        raise SpecError(errors)
    return [each for each in problems if each.level == "warning"]


def _keep_warnings(run: RunDir, findings: Sequence[Finding]) -> None:
    """As the run's warnings, in the driver's events: it has not started yet."""
    if findings:
        events = EventWriter(run, "driver")
        for each in findings:
            events.write("warning", message=f"{each.name}: {each.message}")
        events.close()
