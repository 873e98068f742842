"""Event files under crashes, and on disks that stand still."""

from __future__ import annotations

import errno
import json
import math
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import until
from workbench.rundir import events, store
from workbench.rundir.events import EventWriter
from workbench.rundir.files import ByteCursor


@pytest.fixture
def run(tmp_path: Path) -> store.RunDir:
    return store.create(tmp_path, 'a "name"\nwith; $(things)', "{}")


def test_events_by_cursor(run: store.RunDir) -> None:
    writer, cursor = EventWriter(run), ByteCursor()
    writer.write("step", step=1, metrics={"loss": math.nan})
    assert [(e["seq"], e["metrics"]["loss"]) for e in run.events(cursor)] == [(0, "nan")]
    assert list(run.events(cursor)) == []
    writer.write("step", step=2)
    assert [e["step"] for e in run.events(cursor)] == [2]


@given(st.integers(1, 60))
def test_torn_line_is_never_seen_and_then_cut(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    run = store.create(tmp_path_factory.mktemp("runs"), "torn", "{}")
    writer = EventWriter(run)
    writer.write("step", step=1)
    writer.write("step", step=2, padding="x" * 60)
    writer.close()
    path = run.events_path()
    path.write_bytes(path.read_bytes()[:-cut])
    assert [e["step"] for e in run.events()] == [1]
    EventWriter(run).write("step", step=3)
    assert [(e["seq"], e["step"]) for e in run.events()] == [(0, 1), (1, 3)]


def test_a_broken_line_is_named(run: store.RunDir) -> None:
    EventWriter(run).write("step", step=1)
    with run.events_path().open("ab") as file:
        file.write(b"{broken\n")
    with pytest.raises(ValueError, match="no JSON at byte"):
        list(run.events())


@given(st.integers(0, 200), st.integers(1, 100))
def test_zeros_of_a_power_failure_lose_their_lines_alone(tmp_path_factory: pytest.TempPathFactory, start: int, length: int) -> None:
    run = store.create(tmp_path_factory.mktemp("runs"), "zeros", "{}")
    writer = EventWriter(run)
    for step in range(1, 6):
        writer.write("step", step=step)
    writer.close()
    whole = run.events_path().read_bytes()
    holed = whole[:start] + bytes(min(length, max(0, len(whole) - start))) + whole[start + length :]
    run.events_path().write_bytes(holed)
    lines = [line for line in holed.split(b"\n") if line and b"\0" not in line]
    EventWriter(run).write("step", step=6)
    assert [e["step"] for e in run.events()] == [*(json.loads(line)["step"] for line in lines), 6]


def test_events_are_flushed_soon_and_the_writer_waits_for_no_disk(run: store.RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that stands still in its first flush: a thousand events are written meanwhile, and all of them are flushed."""
    begun, moves = threading.Event(), threading.Event()
    flushed = []
    writer = EventWriter(run)

    def slow(handle: int) -> None:
        if handle == writer._file.fileno():  # not of a writer that another test has left
            begun.set()
            assert moves.wait(120)
            flushed.append(sum(1 for _ in run.events()))

    monkeypatch.setattr(events.os, "fdatasync", slow)
    writer.write("step", step=0, metrics={})
    assert begun.wait(120)
    for number in range(1, 1000):
        writer.write("step", step=number, metrics={})
    assert flushed == []
    moves.set()
    until(lambda: flushed and flushed[-1] == 1000)
    assert len(flushed) <= 4


def test_what_a_flush_finds_is_raised_at_the_next_event(run: store.RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(events.os, "fdatasync", full)
    writer = EventWriter(run)
    writer.write("step", step=1, metrics={})
    until(lambda: writer._failed)
    with pytest.raises(OSError, match="no space left"):
        writer.write("step", step=2, metrics={})
