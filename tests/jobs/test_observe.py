"""What a run's status says when no driver is there to say it."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from workbench import api
from workbench.backends import _slurm_queue, slurm
from workbench.backends.base import Job, JobStatus
from workbench.jobs import observe
from workbench.rundir import store
from workbench.rundir.store import State

ELSEWHERE = Job("local", "1", "another-host", 0.0)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(root: Path) -> api.Run:
    return api.Run(store.create(root, "one", "{}"))


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_interrupted_launch_is_noticed(run: api.Run) -> None:
    run.dir.begin_attempt("waiting")
    assert run.status.state == State.QUEUED
    assert observe.LAUNCH_TIMEOUT_S > slurm.SUBMIT_TIMEOUT_S + 2 * _slurm_queue.COMMAND_TIMEOUT_S  # sbatch may still answer
    for name in ("status.json", ".beat"):
        age(run.dir.path / name, observe.LAUNCH_TIMEOUT_S + 1)
    assert run.status.state == State.FAILED
    assert "launch was interrupted" in run.status.message


def test_driver_on_another_host_is_believed_while_it_gives_signs_of_life(run: api.Run) -> None:
    run.dir.begin_attempt("waiting")
    run.dir.update(state=State.RUNNING, job=asdict(ELSEWHERE))
    age(run.dir.path / "status.json", 3600)
    assert run.status.state == State.RUNNING
    with pytest.raises(ValueError, match="the driver runs on host another-host"):
        run.kill()
    age(run.dir.path / ".beat", 3600)
    assert run.status.state == State.FAILED
    assert "no sign of life from the driver on host another-host" in run.status.message


def test_a_run_in_a_queue_that_cannot_be_seen_from_here_is_left_alone(run: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM does not answer, or this host has no squeue: there is no driver yet that could give a sign of life."""
    run.dir.begin_attempt("waiting")
    run.dir.update(job=asdict(Job("slurm", "7", "login", 0.0)))
    monkeypatch.setattr(slurm, "look", lambda job: JobStatus(None))
    for name in ("status.json", ".beat"):
        age(run.dir.path / name, 3600)
    assert run.status.state == State.QUEUED
    run.dir.update(state=State.RUNNING)
    age(run.dir.path / "status.json", 3600)
    assert run.status.state == State.FAILED


def test_what_was_seen_of_one_attempt_is_not_said_of_the_next(run: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one viewer waits for the scheduler's word on a dead job, another has seen it too, and resumed the run."""
    run.dir.begin_attempt("waiting")
    run.dir.update(state=State.RUNNING, job=asdict(Job("slurm", "7", "login", 0.0)))

    def look(job: Job) -> JobStatus:
        run.dir.update(state=State.FAILED)
        run.dir.begin_attempt("waiting")
        run.dir.update(job=asdict(Job("slurm", "8", "login", 0.0)))
        return JobStatus(False, ended="it is gone")

    monkeypatch.setattr(slurm, "look", look)
    status = run.status
    assert (status.state, status.attempt, status.message) == (State.QUEUED, 2, "waiting")
