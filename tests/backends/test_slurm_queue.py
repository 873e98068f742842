"""What SLURM's answers mean, from stand-ins for its commands."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from backends import _slurm_queue, slurm
from backends.base import Job, Task

SEP = _slurm_queue.SEPARATOR


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Write a command: its lines on standard output and its exit code."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_CONF", str(tmp_path))

    def write(name: str, text: str, code: int = 0) -> None:
        (tmp_path / f"{name}.out").write_text(text)
        (tmp_path / name).write_text(f"#!/bin/sh\necho x >> {tmp_path}/{name}.calls\ncat {tmp_path}/{name}.out\nexit {code}\n")
        (tmp_path / name).chmod(0o700)

    return write


def line(job: str, state: str, reason: str = "None", start: str = "N/A") -> str:
    return SEP.join((job, state, reason, start, "2", "node[1-2]", "main", "run", "ada", "1:00", "30:00", "gres:gpu:8")) + "\n"


def job(number: str) -> Job:
    return Job("slurm", number, "login", 0.0)


def test_one_call_tells_of_all_jobs(commands, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    waits = line("1", "PENDING", "Resources", "2026-11-25T14:05:00") + line("5+0", "PENDING", "Priority") + line("5+1", "RUNNING")
    commands("squeue", waits + line("2", "RUNNING") + line("3", "TIMEOUT") + line("4", "CANCELLED"))
    sights = {number: slurm.look(job(number)) for number in ("1", "2", "3", "4", "5")}
    assert sights["1"].waiting == "SLURM job 1: waiting for nodes (Resources); expected to start 2026-11-25 14:05:00"
    assert (sights["2"].alive, sights["2"].waiting) == (True, "")
    assert (sights["3"].alive, sights["3"].ended) == (False, "SLURM job 3 reached its time limit before the run was saved")
    assert (sights["4"].alive, sights["4"].cancelled) == (False, True)
    assert sights["5"].waiting == "SLURM job 5: behind jobs of higher priority (Priority)"
    assert (tmp_path / "squeue.calls").read_text().count("x") == 1


def test_a_job_that_left_the_queue_is_asked_of_the_accounting(commands) -> None:  # type: ignore[no-untyped-def]
    commands("squeue", "")
    commands("sacct", "OUT_OF_MEMORY|0:125\n")
    assert slurm.look(job("71")).ended == "SLURM job 71 ran out of memory (exit code 0:125)"
    commands("sacct", "CANCELLED by 1000|0:0\n")
    assert slurm.look(job("72")).ended == "SLURM job 72 was cancelled by 1000 (scancel)"
    commands("sacct", "", 1)
    assert slurm.look(job("73")).ended == "SLURM knows no job 73 any more"


def test_a_slurm_that_does_not_answer_marks_nothing(commands) -> None:  # type: ignore[no-untyped-def]
    commands("squeue", "", 1)
    assert slurm.look(job("1")).alive is None


def test_a_look_before_the_job_was_submitted_tells_nothing_of_it(commands) -> None:  # type: ignore[no-untyped-def]
    commands("squeue", "")
    slurm.look(job("1"))
    commands("squeue", line("2", "PENDING"))
    assert slurm.look(Job("slurm", "2", "login", time.time())).waiting == "SLURM job 2: in the queue"


def test_an_old_slurm_is_refused(commands, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    commands("sbatch", "slurm 19.05.5\n")
    with pytest.raises(OSError, match=r"this is SLURM 19\.5\.5; .* since 20\.11"):
        slurm.launch(Task(tmp_path, ("worker",), ("python", "driver"), slurm.Config()))
