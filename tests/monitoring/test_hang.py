"""Hangs of real processes: who is frozen, and who waits in what, is told in time, and called off when the run goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.algorithms.runs import begun
from tests.backends import stand_in
from tests.waiting import until, until_step
from workbench import api
from workbench.monitoring import hang
from workbench.rundir import beats, opening, store
from workbench.rundir.beats import Beat
from workbench.rundir.store import RunDir, State
from workbench.settings import Watch

AFTER_S = 4


def alarms(run: api.Run, kind: str = "alarm") -> list[dict[str, Any]]:
    return [event for event in run.dir.events(role="driver") if event["kind"] == kind]


def beat(rank: int, phase: str = "train", role: str = "actor", **changes: Any) -> Beat:
    known = {"attempt": 1, "host": "here", "pid": 10 + rank, "number": 5, "interval_s": 1.0, "step": 7, "phase_s": 40.0, "moves": 9, "quiet_s": 40.0}
    return Beat(**{**known, "role": role, "rank": rank, "phase": phase, "collective": "", "place": "", **changes})


def named(run: api.Run, ranks: list[str], since: float) -> dict[str, Any]:
    """The alarm that names these ranks."""
    until(lambda: any(alarm["ranks"] == ranks and alarm["time"] > since for alarm in alarms(run)))
    return next(alarm for alarm in alarms(run) if alarm["ranks"] == ranks and alarm["time"] > since)


@pytest.fixture
def running() -> Iterator[list[api.Run]]:
    runs: list[api.Run] = []
    yield runs
    for run in runs:
        if not run.status.state.ended:
            run.kill()


def test_a_frozen_rank_of_a_real_gang_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, running: list[api.Run]) -> None:
    """Two ranks train; the second is stopped by a signal, and goes on later."""
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"What is {i}?", "chosen": f"It is {i}.", "rejected": "No."}) + "\n" for i in range(40)))
    words = (
        f"model.source={tiny_model}",
        f"data.train={rows}",
        "algorithm.max_steps=5000",
        "algorithm.global_batch_size=8",
        "validation.every_steps=0",
    )
    layout = ("backend.ranks_per_node=2", "backend.threads_per_rank=1", f"watch.hang_after_s={AFTER_S}", "checkpoint.every_steps=0")
    run = api.submit(api.compose([*words, *layout]))
    running.append(run)
    until_step(run, 1)
    pid = next(b.pid for b in beats.read(run.dir) if b.rank == 1)
    os.kill(pid, signal.SIGSTOP)
    began = time.time()
    alarm = named(run, ["actor 1"], began)
    print(f"told after {alarm['time'] - began:.1f} s")
    assert alarm["time"] - began >= AFTER_S - 1
    assert alarm["name"] == "hang"
    assert "rank 1 does not beat" in alarm["message"]
    assert re.search(r"; rank 0 is in (train|requests) \(\w+, workbench/\S+\.py:\d+ \w+\) for \d+ s$", alarm["message"])
    until(lambda: run.status.message.startswith("hang: "))
    os.kill(pid, signal.SIGCONT)
    until(lambda: len(alarms(run, "alarm_over")) == len(alarms(run)))
    until(lambda: run.status.message == "")
    run.stop()
    assert run.wait(120).state == State.STOPPED
    assert [b.ended for b in beats.read(run.dir)] == [True, True]


def test_a_frozen_server_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, running: list[api.Run]) -> None:
    words = ("algorithm=ppo", "algorithm.critic.global_batch_size=8", "algorithm.max_steps=5000", "algorithm.served=[critic]")
    run = begun(tmp_path, monkeypatch, tiny_model, *words, f"watch.hang_after_s={AFTER_S}")
    running.append(run)
    until_step(run, 1)
    pid = next(b.pid for b in beats.read(run.dir) if b.role == "critic")
    os.kill(pid, signal.SIGSTOP)
    began = time.time()
    alarm = named(run, ["critic 0"], began)
    os.kill(pid, signal.SIGCONT)
    assert "critic rank 0 does not beat" in alarm["message"]
    assert "rank 0 is in critic_" in alarm["message"]
    until(lambda: len(alarms(run, "alarm_over")) == len(alarms(run)))


SLEEPS = """
beats.begin(run, "actor")
write("state", state="running", step=0, total_steps=40)
for step in range(1, 41):
    time.sleep(0.05)
    with beats.doing("sleep"):
        rank == 1 and step == 5 and attempt == 1 and os.kill(os.getpid(), signal.SIGSTOP)
    while attempt == 1 and step >= 5: time.sleep(0.1)
    write("step", step=step, metrics={})
write("end", reason="completed", step=40)
"""


@pytest.mark.parametrize("restarts", [1, 0])
def test_a_hang_may_end_the_ranks_at_fault(tmp_path: Path, restarts: int) -> None:
    run = stand_in.start(tmp_path, SLEEPS, ranks_per_node=2, max_restarts=restarts, watch=Watch(hang_after_s=3, on_hang="restart"))
    status = run.wait(120)
    assert alarms(run)[-1]["ranks"] == ["actor 1"]
    if restarts:
        assert (status.state, status.attempt, status.step) == (State.COMPLETED, 2, 40)
        assert alarms(run, "alarm_over")[-1]["time"] > alarms(run)[-1]["time"]
    else:
        assert status.state == State.FAILED
        assert status.message.startswith("hang: no rank made progress")
        assert "rank 1 was killed by SIGKILL" in status.message


def test_a_quiet_process_of_another_run_is_not_ended() -> None:
    hang.kill("/another/run", [(os.uname().nodename, os.getppid())])
    assert psutil.pid_exists(os.getppid())


def watched(run: RunDir, found: list[Beat], monkeypatch: pytest.MonkeyPatch, **settings: Any) -> tuple[hang.HangWatch, Callable[[float], None]]:
    now = [0.0]
    monkeypatch.setattr(beats, "read", lambda run: list(found))
    watch = hang.HangWatch(run, Watch(**settings), {"actor": 2, "critic": 1}, clock=lambda: now[0])

    def at(seconds: float) -> None:
        now[0] = seconds
        watch.poll(1, True)

    return watch, at


def test_a_rank_that_never_came_and_one_that_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = store.create(tmp_path, "a", "{}")
    found = [beat(0, "generate", place="workbench/rollout/megatron.py:130 _step", quiet_s=0.0), beat(0, "idle", "critic", quiet_s=0.0)]
    watch, at = watched(run, found, monkeypatch, hang_after_s=60)
    at(1)
    found[:] = [beat(0, "generate", number=6, quiet_s=59.0), beat(0, "idle", "critic", number=6, quiet_s=59.0)]
    at(60)
    assert watch.message == ""
    found[:] = [beat(0, "generate", number=7, quiet_s=65.0), beat(0, "idle", "critic", number=7, quiet_s=65.0)]
    at(66)
    assert watch.message.startswith("no rank made progress for 65 s; rank 1 never began; ")
    assert "rank 0 is in generate for 65 s; critic rank 0 is in idle" in watch.message
    found[:] = [beat(0, "generate", number=8, moves=10, quiet_s=0.0), beat(0, "idle", "critic", number=8, quiet_s=69.0)]
    at(70)
    assert watch.message == ""
    assert [event["kind"] for event in run.events(role="driver")] == ["alarm", "alarm_over"]


def test_zero_seconds_never_alarm_and_the_start_has_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never, at = watched(store.create(tmp_path, "a", "{}"), [], monkeypatch, hang_after_s=0)
    at(1e6)
    assert never.message == ""
    now = [0.0]
    watch = hang.HangWatch(store.create(tmp_path, "b", "{}"), Watch(hang_after_s=10), {"actor": 1}, clock=lambda: now[0])
    for seconds, message in ((1, ""), (39, ""), (46, "no rank made progress for 45 s; rank 0 never began")):
        now[0] = seconds
        watch.poll(1, started=False)
        assert watch.message == message


def test_many_ranks_are_told_in_few_words() -> None:
    waiting = [beat(rank, "train", collective="all_reduce", place="workbench/engine/step.py:80 update") for rank in (*range(2, 8), 0)]
    words = hang.report([*waiting, beat(1, "generate")], [], [], 300)
    assert words == (
        "no rank made progress for 5 min; rank 1 is in generate for 40 s; "
        "ranks 0, 2-7 are in train (all_reduce, workbench/engine/step.py:80 update) for 40 s"
    )


def test_a_disk_that_refuses_stops_the_beats_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDir(tmp_path)
    (tmp_path / "beats").write_text("a file where the folder should be")
    heart = beats.Heart(run, "actor")
    heart.start()
    until(lambda: "no beats can be written" in capsys.readouterr().err)
    heart.end()
    heart.join(120)
    assert not heart.is_alive()


def test_a_file_system_that_stands_still_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = threading.Event()
    begun = threading.Event()
    monkeypatch.setattr(opening, "rename", lambda *_: begun.set() or stuck.wait(120))
    heart = beats.Heart(RunDir(tmp_path), "actor")
    heart.start()
    assert begun.wait(120)
    began = time.thread_time()
    for _ in range(1000):
        with beats.doing("train"):
            beats.moved()
    each_us = (time.thread_time() - began) * 1e3
    print(f"noting a phase and a piece of work: {each_us:.1f} µs")
    assert each_us < 200
    heart.end()
    assert heart.is_alive()  # it stands still, and nobody waited for that
    stuck.set()
    heart.join(120)


def test_a_beat_says_where_the_rank_is(tmp_path: Path) -> None:
    heart = beats.Heart(RunDir(tmp_path), "reward")
    with beats.doing("score"):
        heart.start()
        until(lambda: beats.read(RunDir(tmp_path)))
    first = beats.read(RunDir(tmp_path))[0]
    assert (first.role, first.rank, first.phase, first.pid) == ("reward", 0, "score", os.getpid())
    heart.end()
    heart.join(120)
    assert beats.read(RunDir(tmp_path))[0].ended
