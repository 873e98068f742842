"""What SLURM's answers mean, from stand-ins for its commands."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.backends.slurm_commands import Commands, line
from workbench.backends import _slurm_nodes, _slurm_queue, slurm
from workbench.backends.base import Job, Task


def job(number: str) -> Job:
    return Job("slurm", number, "login", 0.0)


def test_one_call_tells_of_all_jobs(commands: Commands, tmp_path: Path) -> None:
    waits = line("1", "PENDING", "Resources", "2026-11-25T14:05:00") + line("5+0", "PENDING", "Priority") + line("5+1", "RUNNING")
    commands("squeue", waits + line("2", "RUNNING") + line("3", "TIMEOUT") + line("4", "CANCELLED"))
    sights = {number: slurm.look(job(number)) for number in ("1", "2", "3", "4", "5")}
    assert sights["1"].waiting == "SLURM job 1: waiting for nodes (Resources); expected to start 2026-11-25 14:05:00"
    assert (sights["2"].alive, sights["2"].waiting) == (True, "")
    assert (sights["3"].alive, sights["3"].ended) == (False, "SLURM job 3 reached its time limit before the run was saved")
    assert (sights["4"].alive, sights["4"].cancelled) == (False, True)
    assert sights["5"].waiting == "SLURM job 5: behind jobs of higher priority (Priority)"
    assert (tmp_path / "squeue.calls").read_text().count("x") == 1


def test_a_job_that_left_the_queue_is_asked_of_the_accounting(commands: Commands) -> None:
    commands("squeue", "")
    commands("sacct", "OUT_OF_MEMORY|0:125\n")
    assert slurm.look(job("71")).ended == "SLURM job 71 ran out of memory (exit code 0:125)"
    commands("sacct", "CANCELLED by 1000|0:0\n")
    assert slurm.look(job("72")).ended == "SLURM job 72 was cancelled by 1000 (scancel)"
    commands("sacct", "", 1)
    assert slurm.look(job("73")).ended == "SLURM knows no job 73 any more"


def test_a_slurm_that_does_not_answer_marks_nothing(commands: Commands) -> None:
    commands("squeue", "", 1)
    assert slurm.look(job("1")).alive is None


def test_a_look_before_the_job_was_submitted_tells_nothing_of_it(commands: Commands) -> None:
    commands("squeue", "")
    slurm.look(job("1"))
    commands("squeue", line("2", "PENDING"))
    assert slurm.look(Job("slurm", "2", "login", time.time() - 3600)).waiting == "SLURM job 2: in the queue"  # by a host whose clock is behind


def test_those_that_wait_for_a_slow_slurm_share_its_answer(commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in turn would stand still for as long again: a page that lists runs would not come back."""
    monkeypatch.setattr(_slurm_queue, "MAX_AGE_S", 1.0)
    commands("squeue", line("2", "RUNNING"))
    script = (tmp_path / "squeue").read_text()
    for ends, alive in (("", True), ("exit 1", None)):
        (tmp_path / "squeue").write_text(script.replace("cat ", f"sleep 2; {ends}\ncat "))
        (tmp_path / "squeue.calls").unlink(missing_ok=True)
        _slurm_queue._last.clear()
        with ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(_slurm_queue.look, job("2"), 1.0) for _ in range(8)]
        assert [each.result().alive for each in asked] == [alive] * 8
        assert (tmp_path / "squeue.calls").read_text().count("x") <= 2


def test_what_others_call_their_jobs_breaks_nothing(commands: Commands, tmp_path: Path) -> None:
    commands("squeue", "")
    odd = line("1", "RUNNING").replace("run", "a\nb").encode() + line("3", "RUNNING").replace("run", "ab\u2028c").encode()
    (tmp_path / "squeue.out").write_bytes(odd + line("2", "RUNNING").encode().replace(b"run", b"\xff"))
    assert set(_slurm_queue.queue(everyone=True).jobs) == {"2", "3"}


def test_a_slurm_that_stands_still_is_an_error_in_words(commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands("scancel", "")
    (tmp_path / "scancel").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(OSError, match=r"scancel did not answer within 0\.1 s"):
        _slurm_queue.command("scancel", "1", timeout_s=0.1)


def test_an_old_slurm_is_refused(commands: Commands, tmp_path: Path) -> None:
    commands("sbatch", "slurm 19.05.5\n")
    with pytest.raises(OSError, match=r"this is SLURM 19\.05\.5; .* since 20\.11"):
        slurm.launch(Task(tmp_path, ("worker",), ("python", "driver"), slurm.Config()))


def test_a_nodes_reason_says_nothing_of_the_node() -> None:
    """Health checks write what they measured."""
    told = "NodeName=n1 CPUAlloc=0 CPUTot=8 RealMemory=64000 State=DOWN Reason=NHC: RealMemory=12kB State=odd [root@2026-11-25T10:00:00]\n"
    (found,) = _slurm_nodes.nodes(told)
    assert (found.memory_mib, found.state, found.usable) == (64000.0, "down", False)
