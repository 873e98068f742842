"""Waiting for rewards is a state with a reason: it is told, stops on request, and goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from workbench.monitoring.hang import HangWatch
from workbench.rewards.base import Waiting
from workbench.rewards.waiting import StopRequested, until_known
from workbench.rundir import beats, store
from workbench.settings import Watch


def test_what_is_waited_for_is_told_once() -> None:
    attempts = iter([Waiting("two labels"), Waiting("two labels"), Waiting("one label"), None])
    told: list[str] = []
    until_known(lambda: next(attempts), told.append, lambda: False, poll_s=0)
    assert told == ["waiting for two labels", "waiting for one label", ""]
    until_known(lambda: None, told.append, lambda: False)
    assert len(told) == 3


def test_a_stop_ends_the_wait() -> None:
    stops = iter([False, True])
    with pytest.raises(StopRequested, match="a label"):
        until_known(lambda: Waiting("a label"), lambda reason: None, lambda: next(stops), poll_s=0)


def test_a_long_wait_is_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour by a clock that each attempt moves on by ten seconds, before the first step, where a hang is told after four times the limit of ten."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(beats, "_moved_at", now)
    run = store.create(tmp_path, "a", "{}")
    heart = beats.Heart(run, "actor")
    watch = HangWatch(run, Watch(hang_after_s=10), {"actor": 1}, clock=lambda: now)

    def attempt() -> Waiting | None:
        nonlocal now
        now += 10
        heart._beat()
        watch.poll(1, started=False)
        assert not watch.message
        return Waiting("a label") if now < 3600 else None

    until_known(attempt, lambda reason: None, lambda: False, poll_s=0)
    now += 100
    heart._beat()
    assert watch.poll(1, started=False) and "no rank made progress for 100 s" in watch.message
