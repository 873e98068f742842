"""The facade of the app, the notebooks and the command line: submit, list, stop, resume, read.

>>> run = submit(compose(["experiment=dpo_demo"]))
>>> run.status.state, run.stop()
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends import base as backends
from workbench import store
from workbench.spec import Experiment, SpecError, compose
from workbench.store import Cursor, RunDir, State, Status

__all__ = ["Experiment", "Run", "SpecError", "compose", "get", "runs", "submit"]


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
        if status.state.ended or status.job is None:
            return status
        if _backend(status).alive(_job(status)) is False and not self.dir.status.state.ended:
            tail = self.log_tail("driver", lines=5)
            return self.dir.update(state=State.FAILED, message="the driver process died" + (f"; its log ends:\n{tail}" if tail else ""))
        return status

    def events(self, cursor: Cursor | None = None) -> Iterator[dict[str, Any]]:
        return self.dir.events(cursor)

    def stop(self) -> None:
        """Ask the run to save a checkpoint and end at the next step boundary. Raises ValueError when it has ended."""
        status = self.status
        if status.state.ended:
            raise ValueError(f"run {self.id} is {status.state} already")
        self.dir.request("stop")
        self.dir.update(state=State.STOPPING, message="stopping at the next step")

    def kill(self) -> None:
        """End the run at once, without a checkpoint."""
        status = self.status
        if status.state.ended:
            raise ValueError(f"run {self.id} is {status.state} already")
        if status.job:
            _backend(status).kill(_job(status))
        self.dir.update(state=State.STOPPED, message="killed; resume goes on from the last checkpoint")

    def resume(self) -> None:
        """Launch again from the newest complete checkpoint. Raises ValueError while the run goes on or when it is complete."""
        status = self.status
        if not status.state.ended or status.state == State.COMPLETED:
            raise ValueError(f"run {self.id} is {status.state}; only a stopped or failed run can be resumed")
        _launch(self.dir, self.spec)

    def log_tail(self, role: str = "actor", lines: int = 200) -> str:
        """The end of the newest log whose name begins with `role`."""
        logs = sorted(self.dir.logs.glob(f"{role}*.log"), key=lambda path: path.stat().st_mtime)
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
    """Create the run directory and launch its driver. Returns at once; the run goes on without the caller."""
    run = store.create(runs_root(), experiment.name, experiment.to_yaml())
    _launch(run, experiment)
    return Run(run)


def runs() -> list[Run]:
    """Every run, newest first."""
    return [Run(run) for run in store.list_runs(runs_root())]


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
    if len(found) != 1 or not run_id:
        names = ", ".join(run.id for run in (found or known)[:5]) or f"there is none in {runs_root()}"
        raise ValueError(f"{len(found)} runs match {run_id!r}; runs: {names}")
    return found[0]


def _launch(run: RunDir, experiment: Experiment) -> None:
    backend = backends.find(experiment.backend.name)
    attempt = run.status.attempt + 1
    run.update(state=State.QUEUED, attempt=attempt, message="waiting for the backend", job=None)
    task = backends.Task(
        run_dir=run.path,
        command=(sys.executable, "-m", "workbench.worker", str(run.path)),
        driver=(sys.executable, "-m", "workbench.driver", str(run.path)),
        config=experiment.backend,
    )
    try:
        job = backend.launch(task)
    except OSError as error:
        run.update(state=State.FAILED, message=f"the backend could not start: {error}")
        raise
    run.update(job=asdict(job))


def _backend(status: Status) -> backends.Backend:
    return backends.find(_job(status).backend)


def _job(status: Status) -> backends.Job:
    assert status.job is not None
    return backends.Job(**status.job)


