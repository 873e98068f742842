"""Requests to a run: each is obeyed once, whatever the clocks of those who ask."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from workbench.processes.worker import Worker
from workbench.rundir import store
from workbench.rundir.events import EventWriter
from workbench.rundir.files import ByteCursor, append_line


@pytest.fixture
def run(tmp_path: Path) -> store.RunDir:
    return store.create(tmp_path, "one", "{}")


def begun(run: store.RunDir, obeyed: float, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A rank that goes on from a checkpoint, as far as requests are concerned."""
    from workbench.engine import parallel

    monkeypatch.setattr(parallel, "rank", lambda: 0)
    monkeypatch.setattr(parallel, "from_first", lambda value: value)
    worker: Any = object.__new__(Worker)
    worker.run, worker.step, worker.spec = run, 7, SimpleNamespace()
    worker._requests, worker._attempt, worker._paused, worker._first_look, worker._obeyed = ByteCursor(), 1, False, True, obeyed
    worker._events = EventWriter(run)
    worker.applied = []
    worker._apply = worker.applied.append
    return worker


def ask(run: store.RunDir, time: float, request: str, **values: Any) -> None:
    append_line(run.path / "control.jsonl", {"time": time, "request": request, **values})


def test_a_request_by_a_host_whose_clock_is_behind_is_obeyed(run: store.RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = begun(run, 0.0, monkeypatch)
    ask(run, 1030.0, "pause")
    worker._obey()
    ask(run, 1010.0, "set", values={"lr": 1e-5})
    ask(run, 1011.0, "unpause")
    worker._obey()
    worker._obey()
    assert (worker.applied, worker._paused, worker._obeyed) == ([{"lr": 1e-5}], False, 1030.0)
    assert [event["asked"] for event in run.events() if event["kind"] == "control"] == [1030.0, 1010.0, 1011.0]


def test_what_the_checkpoint_knows_is_not_obeyed_again(run: store.RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    for time in (1000.0, 1030.0):
        ask(run, time, "set", values={"lr": time})
    worker = begun(run, 1000.0, monkeypatch)
    worker._obey()
    assert worker.applied == [{"lr": 1030.0}]
