"""Runs: submitting, finding, and all that can be asked of one, wherever it executes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from workbench.jobs import launch
from workbench.jobs.observe import backend_of, ended, job_of, observed_status
from workbench.jobs.problems import Problem, problems
from workbench.machines import usage
from workbench.machines.usage import Cluster, Where
from workbench.rundir import listing, opening
from workbench.rundir.files import ByteCursor
from workbench.rundir.lines import Event
from workbench.rundir.opening import Unreadable
from workbench.rundir.owned import Handle
from workbench.rundir.permission import changes
from workbench.rundir.store import LIVE, RunDir, State, Status
from workbench.serve.health import Report, reports
from workbench.settings import stored
from workbench.settings.spec import Experiment


@dataclass(frozen=True)
class Run(Handle[RunDir]):
    """One run, wherever it executes.

    All that reads or changes it raises Unreadable, a ValueError, where its status is damaged or a newer version made its folder; all that changes it
    ReadOnly, a ValueError too, where the run is another user's or cannot be written.
    """

    @property
    def spec(self) -> Experiment:
        """What the run is. Raises SpecError where this version does not have its settings."""
        return stored.experiment(self.dir)

    @property
    def commit(self) -> str:
        """The commit of the run's hub model; empty where its model is of no hub, or it has not begun. What cannot be read `problems` names."""
        path = self.dir.path / "commit"
        with contextlib.suppress(Unreadable):
            return opening.read_text(path) if opening.is_file(path) else ""
        return ""

    def problems(self) -> list[Problem]:
        """What of its folder cannot be read, file by file with the cause."""
        return problems(self.dir)

    @property
    def status(self) -> Status:
        """The status, after a check whether the driver that should be writing it still lives."""
        return observed_status(self.dir)

    def events(self, cursor: ByteCursor | None = None) -> Iterator[Event]:
        """The events of rank 0 after the cursor, which moves on; all of them without one."""
        self.dir.readable_format()
        return self.dir.events(cursor)

    def servers(self) -> list[Report]:
        """How each of the run's servers is; none where it computes everything itself."""
        served = stored.spec_tree(self.dir).get("algorithm", {}).get("served", ())
        return reports(self.dir.path, served, self.status.state.ended)

    @changes
    def stop(self) -> None:
        """Ask the run to save a checkpoint and end at the next step boundary; one that waits in a queue is taken out of it.

        Raises ValueError when it has ended.
        """
        status = self._check_live()
        if status.state == State.QUEUED and status.job and backend_of(status).withdraw(job_of(status)):
            ended(self.dir, status, State.STOPPED, "taken out of the queue; resume queues it again")
            return
        self.dir.request("stop")
        self.dir.move(LIVE, state=State.STOPPING, message="stopping at the next step")

    @changes
    def change(self, **values: object) -> None:
        """Change settings of the algorithm at the next step, on all ranks: `run.change(kl_coefficient=0.02)`.

        Raises:
            ValueError: the run has ended, or a setting that cannot be changed while it is running, or a value out of bounds.
        """
        self._check_live()
        algorithm = self.spec.algorithm
        wrong = [name for name in values if name not in algorithm.live]
        if wrong or not values:
            raise ValueError(f"{', '.join(wrong) or 'nothing'} cannot be changed during the run; these can: {', '.join(algorithm.live)}")
        try:
            type(algorithm).model_validate({**algorithm.model_dump(), **values})
        except ValidationError as error:
            raise ValueError("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors())) from None
        self.dir.request("set", values=values)

    @changes
    def pause(self) -> None:
        """Hold the run before its next step, until `unpause`. Raises ValueError when it has ended."""
        self._check_live()
        self.dir.request("pause")

    @changes
    def unpause(self) -> None:
        """Let a paused run continue. Raises ValueError when it has ended."""
        self._check_live()
        self.dir.request("unpause")

    @changes
    def kill(self) -> None:
        """End the run at once, without a checkpoint. Raises ValueError when it has ended, or where this host cannot reach it."""
        status = self._check_live()
        if status.job:
            backend_of(status).kill(job_of(status))
        self.dir.move(LIVE, state=State.KILLED, message="killed; resume continues from the last checkpoint")

    @changes
    def resume(self, overrides: Sequence[str] = (), changed_data: bool = False) -> None:
        """Launch again from the latest valid checkpoint, in another layout or on other nodes where the overrides say so.

        Raises:
            ValueError: the run is still running or is complete, a file that it needs cannot be read, or a data file has changed since the launch and
                `changed_data` does not allow that; SpecError for an override that a resume cannot make, or what no node could run.
        """
        self.dir.check_writable()
        status = self.status
        if not status.state.ended or status.state == State.COMPLETED:
            raise ValueError(f"run {self.id} is {status.state}; only a stopped, killed or failed run can be resumed")
        launch.resume(self.dir, status.attempt + 1, overrides, changed_data)

    def logs(self, role: str = "", rank: int | None = None) -> list[Path]:
        """The logs of a role (driver, actor), oldest first; all without one. Each launch has its own."""
        self.dir.readable_format()
        return self.dir.role_logs(role, rank)

    def log_tail(self, role: str = "actor", lines: int = 200, rank: int | None = None) -> str:
        """The end of the newest log whose name begins with `role`."""
        return self.dir.log_tail(role, lines, rank)

    def wait(self, timeout_s: float | None = None) -> Status:
        """Block until the run has ended. Raises TimeoutError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (status := self.status).state.ended:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"run {self.id} is still {status.state} after {timeout_s} s")
            time.sleep(0.2)
        return status

    def _check_live(self) -> Status:
        self.dir.check_writable()
        status = self.status
        if status.state.ended:
            raise ValueError(f"run {self.id} has already {'been killed' if status.state == State.KILLED else status.state}")
        return status


@changes
def submit(experiment: Experiment, once: str = "") -> Run:
    """Create the run directory and launch its driver. Returns at once; the run continues without the caller.

    Args:
        once: a name of the user's. Where they launched a run with it before, that run is given back.

    Raises:
        SpecError: a function that the settings name is not there, or no node could run it (see `preflight`); nothing was made. Or the run launched
            with `once` computes something else.
        OSError: the run directory or the driver could not be made; the message tells which.
    """
    return Run(launch.start(experiment, once))


def runs() -> list[Run]:
    """Every run, newest first."""
    return [Run(run) for run in listing.list_runs(listing.runs_root())]


def get(run_id: str) -> Run:
    """The run with this id, or the only one whose id begins or ends so; `latest` is the newest.

    Raises:
        ValueError: none or several; the message names the newest ones.
    """
    return Run(listing.find(run_id))


def cluster(where: Where | None = None) -> Cluster:
    """Nodes, queue and the live runs' processes with what they use; of SLURM where there is one, else of this machine."""
    return usage.look(runs(), where or usage.places()[0])
