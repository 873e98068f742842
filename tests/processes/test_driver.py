"""How a driver merges a run's events into its status."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import api
from workbench.processes import driver
from workbench.rundir import store
from workbench.rundir.events import EventWriter
from workbench.rundir.store import State


@pytest.fixture
def run(tmp_path: Path) -> api.Run:
    return api.Run(store.create(tmp_path, "one", "{}"))


def test_progress_writes_the_status_at_most_twice_a_second(run: api.Run) -> None:
    """Ten thousand steps in no time, then a clock that moves on: the last step arrives, with two writes."""
    run.dir.begin_attempt("waiting")
    now = 0.0
    progress = driver.Progress(run.dir, clock=lambda: now)
    writer = EventWriter(run.dir)
    writer.write("state", state="running", step=0, total_steps=10_000)
    progress.poll(1)
    for step in range(1, 10_001):
        writer.write("step", step=step, metrics={})
    written = (run.dir.path / "status.json").stat().st_mtime_ns
    progress.poll(1)
    assert (run.dir.path / "status.json").stat().st_mtime_ns == written
    now = 0.6
    progress.poll(1)
    status = run.dir.status
    assert (status.state, status.step, status.total_steps) == (State.RUNNING, 10_000, 10_000)


def test_a_resumed_step_count_goes_back(run: api.Run) -> None:
    run.dir.begin_attempt("waiting")
    EventWriter(run.dir).write("step", step=9, metrics={})
    progress = driver.Progress(run.dir)
    EventWriter(run.dir).write("state", state="running", step=6, total_steps=10)
    progress.poll(1)
    assert run.dir.status.step == 6


@pytest.mark.parametrize("meanwhile", ["", "waiting for the labels of 8 answers"])
def test_what_was_said_during_an_alarm_stands_after_it(run: api.Run, meanwhile: str) -> None:
    """By a rank that took long to begin; where none said anything, what the alarm replaced. Twice, because an alarm may come again."""
    run.dir.begin_attempt("starting the ranks")
    progress, writer = driver.Progress(run.dir), EventWriter(run.dir)

    def message_after(alarm: str) -> str:
        progress.alarm(alarm)
        progress.flush()
        return run.dir.status.message

    for _ in range(2):
        assert message_after("hang: rank 0 never began") == "hang: rank 0 never began"
        assert message_after("hang: rank 1 never began") == "hang: rank 1 never began"
        if meanwhile:
            writer.write("phase", message=meanwhile)
            progress.poll(1)
        assert message_after("") == (meanwhile or "starting the ranks")


def test_a_restart_is_said_after_a_hang(run: api.Run) -> None:
    run.dir.begin_attempt("starting the ranks")
    progress = driver.Progress(run.dir, clock=lambda: 0.0)
    progress.alarm("hang: rank 0 never began")
    progress.poll(2)
    progress.alarm("")
    progress.flush()
    assert (run.dir.status.attempt, run.dir.status.message) == (2, "restarting as attempt 2")
