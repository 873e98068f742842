"""What the status of a run is, also when no driver is left to write it."""

from __future__ import annotations

from workbench.backends import base as backends
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import LIVE, RunDir, State, Status

LAUNCH_TIMEOUT_S = 240.0
"""A scheduler that is asked for the job may take its time: longer than any backend waits for it."""
SILENCE_TIMEOUT_S = 300.0
INTERRUPTED = "the launch was interrupted before the backend gave a job"


def observed_status(run: RunDir) -> Status:
    """The run's status, after a check whether the driver that should be writing it still lives.

    What its owner wrote last, where this user cannot change it.

    Raises:
        Unreadable: there is no status, it is damaged, or a newer version made it.
    """
    status = run.status
    if status.state.ended or status.state == State.CREATED or run.read_only:
        return status
    if status.job is None:
        if run.silence_s < LAUNCH_TIMEOUT_S:
            return status
        return ended(run, status, State.FAILED, INTERRUPTED)
    try:
        sight = backend_of(status).look(job_of(status))
    except (ValueError, OverflowError) as error:  # a job that no backend gave
        raise Unreadable(run.status_path, f"job: {error}") from None
    if sight.waiting:
        return _waits(run, status, sight)
    if sight.alive or (sight.alive is None and (_in_a_queue(status) or run.silence_s < SILENCE_TIMEOUT_S)):
        return status
    if sight.alive is None:
        return ended(run, status, State.FAILED, f"no sign of life from the driver on host {job_of(status).host} for {run.silence_s:.0f} s")
    if sight.cancelled:
        state = State.STOPPED if status.state == State.QUEUED else State.KILLED
        return ended(run, status, state, f"{sight.ended}; resume continues from the last checkpoint")
    tail = run.log_tail("driver", lines=5) or run.log_tail("slurm", lines=5)
    return ended(run, status, State.FAILED, sight.ended + (f"; the end of its log:\n{tail}" if tail else ""))


def ended(run: RunDir, seen: Status, state: State, reason: str) -> Status:
    """The status after the run of the attempt that was seen has ended so, where nobody has written another end meanwhile."""
    return run.move(LIVE, since=seen, state=state, message=reason) or run.status


def backend_of(status: Status) -> backends.Backend:
    """The backend that the run's job is of. The status has a job. Raises ValueError for a backend that there is not."""
    return backends.find(job_of(status).backend)


def job_of(status: Status) -> backends.Job:
    """The job of a status that has one."""
    assert status.job is not None
    return backends.Job(**status.job)


def _waits(run: RunDir, status: Status, sight: backends.JobStatus) -> Status:
    """The status of a run whose job is in the queue, or in it again. What the driver wrote after the look counts more."""
    known = status.state == State.QUEUED and status.message == sight.waiting
    if known or status.state == State.STOPPING or sight.time < status.updated:
        return status
    going = [state for state in LIVE if state != State.STOPPING]
    return run.move(going, since=status, state=State.QUEUED, message=sight.waiting) or run.status


def _in_a_queue(status: Status) -> bool:
    """No driver has begun, so none can be silent. On this or another machine without a queue it begins at once."""
    return status.state in (State.QUEUED, State.PREEMPTED) and job_of(status).backend != "local"
