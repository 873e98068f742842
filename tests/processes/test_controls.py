"""Requests to a run: each is obeyed once, whatever the clocks of those who ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench.processes.controls import Controls
from workbench.rundir import store
from workbench.rundir.events import EventWriter
from workbench.rundir.files import append_line


class Bystander:
    """What of a rank the requests need."""

    attempt = 1

    def __init__(self, run: store.RunDir):
        self.run, self._events = run, EventWriter(run)

    def emit(self, kind: str, **values: Any) -> None:
        self._events.write(kind, **values)


@pytest.fixture
def run(tmp_path: Path) -> store.RunDir:
    return store.create(tmp_path, "one", "{}")


def begun(run: store.RunDir, obeyed: float, monkeypatch: pytest.MonkeyPatch) -> tuple[Controls, list[Any]]:
    """The controls of a rank that goes on from a checkpoint, and the changes that they make."""
    from workbench.engine import parallel

    monkeypatch.setattr(parallel, "rank", lambda: 0)
    monkeypatch.setattr(parallel, "from_first", lambda value: value)
    applied: list[Any] = []
    return Controls(Bystander(run), applied.append, obeyed), applied  # type: ignore[arg-type]


def ask(run: store.RunDir, time: float, request: str, **values: Any) -> None:
    append_line(run.path / "control.jsonl", {"time": time, "request": request, **values})


def test_a_request_by_a_host_whose_clock_is_behind_is_obeyed(run: store.RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    controls, applied = begun(run, 0.0, monkeypatch)
    ask(run, 1030.0, "pause")
    controls.obey(7)
    assert controls.paused
    ask(run, 1010.0, "set", values={"lr": 1e-5})
    ask(run, 1011.0, "unpause")
    controls.obey(7)
    controls.obey(7)
    assert (applied, controls.paused, controls.last_request_time) == ([{"lr": 1e-5}], False, 1030.0)
    assert [event["asked"] for event in run.events() if event["kind"] == "control"] == [1030.0, 1010.0, 1011.0]


def test_what_the_checkpoint_knows_is_not_obeyed_again(run: store.RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    for time in (1000.0, 1030.0):
        ask(run, time, "set", values={"lr": time})
    controls, applied = begun(run, 1000.0, monkeypatch)
    controls.obey(7)
    assert applied == [{"lr": 1030.0}]
