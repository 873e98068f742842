"""The facade of the app, the notebooks and the command line: submit, list, stop, resume, read.

>>> run = submit(compose(["experiment=dpo_demo"]))
>>> run.status.state, run.stop()
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from backends import base as backends
from backends import local
from backends.base import Finding
from workbench.data.check import CheckReport, Piece, Sample
from workbench.data.check import Page as DataPage
from workbench.data.formats import SCHEMAS
from workbench.data.readers import locate
from workbench.jobs import preflight as preflights
from workbench.machines import usage as clusters
from workbench.machines.usage import Allocation, Cluster, Where
from workbench.processes.driver import task_of
from workbench.rundir import store
from workbench.rundir.events import EventWriter
from workbench.rundir.files import ByteCursor
from workbench.rundir.store import LIVE, RunDir, State, Status
from workbench.serve.health import Report, reports
from workbench.settings import placement
from workbench.settings.spec import Experiment, SpecError, changed, compose

__all__ = [
    "Allocation",
    "CheckReport",
    "Cluster",
    "DataPage",
    "Experiment",
    "Finding",
    "Piece",
    "Run",
    "SCHEMAS",
    "Sample",
    "SpecError",
    "Where",
    "browse_data",
    "check_data",
    "cluster",
    "compose",
    "get",
    "locate",
    "places",
    "preflight",
    "runs",
    "script",
    "submit",
]

LAUNCH_TIMEOUT_S = 240.0
"""A scheduler that is asked for the job may take its time: longer than any backend waits for it."""
SILENCE_TIMEOUT_S = 300.0


def runs_root() -> Path:
    """Where runs live: $WORKBENCH_RUNS, or ./runs."""
    return Path(os.environ.get("WORKBENCH_RUNS", "runs")).resolve()


@dataclass(frozen=True)
class Run:
    """One run, wherever it executes."""

    dir: RunDir

    @property
    def id(self) -> str:
        return self.dir.id

    @property
    def spec(self) -> Experiment:
        return Experiment.from_yaml(self.dir.spec_path.read_text())

    @property
    def status(self) -> Status:
        """The status, after a look whether the driver that should be writing it still lives."""
        status = self.dir.status
        if status.state.ended or status.state == State.CREATED:
            return status
        if status.job is None:
            if self.dir.silence_s < LAUNCH_TIMEOUT_S:
                return status
            return self._ended(status, State.FAILED, "the launch was interrupted before the backend gave a job")
        sight = _backend(status).look(_job(status))
        if sight.waiting:
            return self._waits(status, sight)
        if sight.alive or (sight.alive is None and (_in_a_queue(status) or self.dir.silence_s < SILENCE_TIMEOUT_S)):
            return status
        if sight.alive is None:
            return self._ended(status, State.FAILED, f"no sign of life from the driver on host {_job(status).host} for {self.dir.silence_s:.0f} s")
        if sight.cancelled:
            return self._ended(status, State.STOPPED, f"{sight.ended}; resume goes on from the last checkpoint")
        tail = self.log_tail("driver", lines=5) or self.log_tail("slurm", lines=5)
        return self._ended(status, State.FAILED, sight.ended + (f"; the end of its log:\n{tail}" if tail else ""))

    def _ended(self, seen: Status, state: State, reason: str) -> Status:
        return self.dir.move(LIVE, since=seen, state=state, message=reason) or self.dir.status

    def _waits(self, status: Status, sight: backends.Sight) -> Status:
        """The status of a run whose job is in the queue, or in it again. What the driver wrote after the look counts more."""
        known = status.state == State.QUEUED and status.message == sight.waiting
        if known or status.state == State.STOPPING or sight.time < status.updated:
            return status
        going = [state for state in LIVE if state != State.STOPPING]
        return self.dir.move(going, since=status, state=State.QUEUED, message=sight.waiting) or self.dir.status

    def events(self, cursor: ByteCursor | None = None) -> Iterator[dict[str, Any]]:
        return self.dir.events(cursor)

    def servers(self) -> list[Report]:
        """How each of the run's servers is; none where it computes everything itself."""
        path = self.dir.spec_path
        return reports(self.dir.path, _served(path, path.stat().st_mtime_ns), self.status.state.ended)

    def stop(self) -> None:
        """Ask the run to save a checkpoint and end at the next step boundary; one that waits in a queue is taken out of it.

        Raises ValueError when it has ended.
        """
        status = self._check_live()
        if status.state == State.QUEUED and status.job and _backend(status).withdraw(_job(status)):
            self._ended(status, State.STOPPED, "taken out of the queue; resume queues it again")
            return
        self.dir.request("stop")
        self.dir.move(LIVE, state=State.STOPPING, message="stopping at the next step")

    def change(self, **values: Any) -> None:
        """Change settings of the algorithm at the next step, on all ranks: `run.change(kl_coefficient=0.02)`.

        Raises:
            ValueError: the run has ended, or a setting that cannot be changed while it goes on, or a value out of bounds.
        """
        self._check_live()
        algorithm = self.spec.algorithm
        wrong = [name for name in values if name not in algorithm.live]
        if wrong or not values:
            raise ValueError(f"{', '.join(wrong) or 'nothing'} cannot be changed while the run goes on; these can: {', '.join(algorithm.live)}")
        try:
            type(algorithm).model_validate({**algorithm.model_dump(), **values})
        except ValidationError as error:
            raise ValueError("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors())) from None
        self.dir.request("set", values=values)

    def pause(self) -> None:
        """Hold the run before its next step, until `unpause`. Raises ValueError when it has ended."""
        self._check_live()
        self.dir.request("pause")

    def unpause(self) -> None:
        """Let a paused run go on. Raises ValueError when it has ended."""
        self._check_live()
        self.dir.request("unpause")

    def kill(self) -> None:
        """End the run at once, without a checkpoint. Raises ValueError when it has ended, or where this host cannot reach it."""
        status = self._check_live()
        if status.job:
            _backend(status).kill(_job(status))
        self.dir.move(LIVE, state=State.STOPPED, message="killed; resume goes on from the last checkpoint")

    def resume(self, overrides: Sequence[str] = ()) -> None:
        """Launch again from the newest sound checkpoint, in another layout or on other nodes where the overrides say so.

        Raises:
            ValueError: the run goes on or is complete; SpecError for an override that a resume cannot make, or what no node could run.
        """
        status = self.status
        if not status.state.ended or status.state == State.COMPLETED:
            raise ValueError(f"run {self.id} is {status.state}; only a stopped or failed run can be resumed")
        experiment = changed(self.spec, overrides)
        warnings = _checked(experiment)
        if overrides:
            self.dir.change_spec(status.attempt + 1, experiment.to_yaml())
        _warn(self.dir, warnings)
        launch(self.dir, task_of(self.dir, experiment, status.attempt + 1))

    def _check_live(self) -> Status:
        status = self.status
        if status.state.ended:
            raise ValueError(f"run {self.id} has already {status.state}")
        return status

    def logs(self, role: str = "", rank: int | None = None) -> list[Path]:
        """The logs of a role (driver, actor), oldest first; all without one. Each launch has its own."""
        pattern = f"{role or '*'}-{rank}.*.log" if rank is not None else f"{role}*.log"
        return sorted(self.dir.logs.glob(pattern), key=lambda path: (path.stat().st_mtime_ns, path.name))

    def log_tail(self, role: str = "actor", lines: int = 200, rank: int | None = None) -> str:
        """The end of the newest log whose name begins with `role`."""
        logs = self.logs(role, rank)
        if not logs:
            return ""
        with logs[-1].open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 400 * lines))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])

    def wait(self, timeout_s: float | None = None) -> Status:
        """Block until the run has ended. Raises TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (status := self.status).state.ended:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"run {self.id} is still {status.state} after {timeout_s} s")
            time.sleep(0.2)
        return status


def submit(experiment: Experiment) -> Run:
    """Create the run directory and launch its driver. Returns at once; the run goes on without the caller.

    Raises:
        SpecError: a function that the settings name is not there, or no node could run it (see `preflight`); nothing was made.
        OSError: the run directory or the driver could not be made; the message tells which.
    """
    experiment = _settled(experiment)
    warnings = _checked(experiment)
    run = store.create(runs_root(), experiment.name, experiment.to_yaml())
    _warn(run, warnings)
    launch(run, task_of(run, experiment, attempt=1))
    return Run(run)


def preflight(experiment: Experiment, on_node: bool = False) -> list[Finding]:
    """What would keep the experiment from starting, without submitting it; with `on_node` also from a try on a node, which waits in the queue.

    Raises:
        ValueError: a function that the settings name is not there; or `on_node` where the backend has no nodes.
    """
    return preflights.check(_settled(experiment), runs_root(), on_node)


def script(experiment: Experiment) -> str:
    """The batch script that `submit` would hand in now; empty where the backend has none."""
    return preflights.script(_settled(experiment), runs_root())


def _settled(experiment: Experiment) -> Experiment:
    """As a run keeps it: its files are there and named from the root, and what was left open is settled. Raises SpecError for one that is not."""
    experiment.check_files()
    experiment = experiment.with_absolute_paths()
    if not placement.is_open(experiment.algorithm):
        return experiment
    here = local.survey()
    return experiment.settled(has_gpus=bool(here.nodes[0].gpus or here.error))


def _checked(experiment: Experiment) -> list[Finding]:
    """The warnings of the quick checks; none for this machine, where the start itself tells within seconds. Raises SpecError for an error."""
    found = [] if experiment.backend.name == "local" else preflights.quick(experiment, runs_root())
    if errors := [(each.key, f"{each.name}: {each.message}") for each in found if each.level == "error"]:
        raise SpecError(errors)
    return [each for each in found if each.level == "warning"]


def _warn(run: RunDir, findings: Sequence[Finding]) -> None:
    """Keep them as the run's warnings, in the driver's events: it has not started yet."""
    if findings:
        events = EventWriter(run, "driver")
        for each in findings:
            events.write("warning", message=f"{each.name}: {each.message}")
        events.close()


def check_data(source: str, kind: str, format: str = "auto", model: str = "smollm2-135m-instruct", max_length: int = 1024) -> CheckReport:
    """What `workbench data check` finds, in a process of its own, so that the caller loads no tokenizer.

    Raises:
        ValueError: what the command told the user.
    """
    words = ("--kind", kind, "--format", format, "--model", model, "--max-length", str(max_length))
    return CheckReport.model_validate_json(_data_check(source, *words))


def browse_data(source: str, kind: str, offset: int, count: int, format: str = "auto", model: str = "smollm2-135m-instruct") -> DataPage:
    """Some good rows of a source as training sees them. Raises ValueError as `check_data` does."""
    return DataPage.model_validate_json(_data_check(source, "--kind", kind, "--format", format, "--model", model, "--rows", f"{offset}:{count}"))


def _data_check(source: str, *words: str) -> str:
    command = [sys.executable, "-m", "workbench.terminal.cli", "data", "check", "--json", *words, "--", source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(done.stderr.strip().removeprefix("error ") or f"the check exited with {done.returncode}")
    return done.stdout


def runs() -> list[Run]:
    """Every run, newest first."""
    return [Run(run) for run in store.list_runs(runs_root())]


def places() -> list[Where]:
    """What `cluster` can look at from here: SLURM where its commands are, and this machine."""
    return clusters.places()


def cluster(where: Where | None = None) -> Cluster:
    """Nodes, queue and the live runs' processes with what they use; of SLURM where there is one, else of this machine."""
    return clusters.look(runs(), where or places()[0])


def get(run_id: str) -> Run:
    """The run with this id, or the only one whose id begins or ends so; `latest` is the newest.

    Raises:
        ValueError: none or several; the message names the newest ones.
    """
    known = runs()
    if run_id == "latest" and known:
        return known[0]
    exact = [run for run in known if run.id == run_id]
    found = exact or [run for run in known if run.id.startswith(run_id) or run.id.endswith(run_id)]
    if not known:
        raise ValueError(f"there are no runs in {runs_root()}; start one: workbench run experiment=dpo_demo")
    if len(found) != 1 or not run_id:
        names = ", ".join(run.id for run in (found or known)[:5])
        raise ValueError(f"{len(found) if found else 'no'} runs match {run_id!r}; {'they are' if found else 'the newest are'}: {names}")
    return found[0]


def launch(run: RunDir, task: backends.Task) -> None:
    """Queue a new or an ended run and start its driver.

    Raises:
        ValueError: the run goes on, or someone else has just launched it.
        OSError: the backend could not start it; the run is failed.
    """
    status = run.begin_attempt("waiting for the backend")
    if status is None:
        raise ValueError(f"run {run.id} goes on already")
    try:
        job = backends.find(task.config.name).launch(replace(task, attempt=status.attempt))
    except OSError as error:
        run.update(state=State.FAILED, message=f"the backend could not start: {error}")
        raise
    run.update(job=asdict(job))


@functools.lru_cache(maxsize=256)
def _served(spec: Path, _changed_ns: int) -> Sequence[str]:
    """The roles that the settings serve, unchecked: a run of an older version is shown too."""
    return yaml.safe_load(spec.read_text())["algorithm"].get("served", ())


def _in_a_queue(status: Status) -> bool:
    """No driver has begun, so none can be silent. On this or another machine without a queue it begins at once."""
    return status.state in (State.QUEUED, State.PREEMPTED) and _job(status).backend != "local"


def _backend(status: Status) -> backends.Backend:
    return backends.find(_job(status).backend)


def _job(status: Status) -> backends.Job:
    assert status.job is not None
    return backends.Job(**status.job)
