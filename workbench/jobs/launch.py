"""From an experiment to a run directory with a driver: what is checked first, what is settled, and the launch itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import cast

from workbench.backends import base as backends
from workbench.backends import forking, local
from workbench.backends.base import Finding
from workbench.jobs import inputs
from workbench.jobs import preflight as preflights
from workbench.jobs.checkpoints import with_checkpoint
from workbench.jobs.problems import needed
from workbench.jobs.sources import check_sources
from workbench.processes import WARM, startup
from workbench.processes.driver import task_of
from workbench.rundir import once as onces
from workbench.rundir import store
from workbench.rundir.events import EventWriter
from workbench.rundir.lines import Job
from workbench.rundir.permission import changes
from workbench.rundir.store import FORMAT, RunDir, State
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
    with onces.one_launcher(store.runs_root()):
        run = onces.launched(store.runs_root(), once)
        if run is None:
            return _start(experiment, once)
        if differing := _differing(with_checkpoint(experiment).with_absolute_paths(), stored.experiment(run)):
            raise SpecError([(key, f"is {now!r}; once={once!r} was launched as {run.id} with {was!r}") for key, now, was in differing])
        if run.status.state == State.CREATED:  # whoever created it ended before the launch
            launch(run, task_of(run, stored.experiment(run), attempt=1))
        return run


def _start(experiment: Experiment, once: str = "") -> RunDir:
    experiment = _settled(experiment)
    warnings = _warnings(experiment)
    run = store.create(store.runs_root(), experiment.name, experiment.to_yaml(), once)
    try:
        _keep_warnings(run, warnings)
        inputs.keep(run, experiment)
        launch(run, task_of(run, experiment, attempt=1))
    except OSError:
        if run.status.state == State.CREATED:
            store.discard(run)
        raise
    return run


def _differing(wanted: Experiment, launched: Experiment) -> list[tuple[str, object, object]]:
    """The settings that decide what a run computes and that are not those it was launched with: key, wanted, launched."""
    now, was = (dict(composing.leaves(experiment.model_dump(mode="json"))) for experiment in (wanted, launched))
    settled = ("algorithm.served",) if placement.is_open(wanted.algorithm) else ()
    free = (*RESUMABLE, *settled)
    keys = [key for key in {**was, **now} if not any(key == name or key.startswith(f"{name}.") for name in free)]
    return [(key, now.get(key), was.get(key)) for key in keys if now.get(key) != was.get(key)]


@changes
def resume(run: RunDir, attempt: int, overrides: Sequence[str] = (), changed_data: bool = False) -> None:
    """Launch an ended run again as this attempt, from its latest valid checkpoint, with other settings where the overrides say so.

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
    launch(run, task_of(run, experiment, attempt))


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
    return preflights.check(_settled(experiment), store.runs_root(), on_node)


@changes
def keep_warm(*modules: str) -> None:
    """From now on this process's runs on this machine begin at once: a server that has imported what they need, and these, forks them. Returns at once."""
    forking.own((*WARM, *modules))


def script(experiment: Experiment) -> str:
    """The batch script that `start` would hand in now; empty where the backend has none."""
    return preflights.script(_settled(experiment), store.runs_root())


def _settled(experiment: Experiment) -> Experiment:
    """As a run keeps it: its sources can be read and are named from the root, and what was left open is settled. Raises SpecError for those that cannot."""
    experiment = with_checkpoint(experiment)
    if problems := check_sources(experiment).problems:
        raise SpecError(problems)
    experiment = experiment.with_absolute_paths()
    if not placement.is_open(experiment.algorithm):
        return experiment
    here = local.survey()
    return experiment.settled(has_gpus=bool(here.nodes[0].gpus or here.error))


def _warnings(experiment: Experiment) -> list[Finding]:
    """Those of the quick checks; none for this machine, where the start itself tells within seconds. Raises SpecError for an error."""
    problems = [] if experiment.backend.name == "local" else preflights.quick(experiment, store.runs_root())
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
