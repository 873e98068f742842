"""The run directory under crowds."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from workbench.rundir import store
from workbench.rundir.files import ByteCursor
from workbench.rundir.store import State


@pytest.fixture
def run(tmp_path: Path) -> store.RunDir:
    return store.create(tmp_path, 'a "name"\nwith; $(things)', "{}")


def test_created(run: store.RunDir) -> None:
    assert run.status.state == State.CREATED
    assert run.path.stat().st_mode & 0o777 == 0o700
    assert set(run.id) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_two_writers_of_the_status(run: store.RunDir) -> None:
    """A hundred updates of each of two fields from two threads: none is lost, and every reading is whole."""

    def count(field: str) -> None:
        for i in range(1, 101):
            run.update(**{field: i})

    threads = [threading.Thread(target=count, args=(field,)) for field in ("step", "total_steps")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        json.loads((run.path / "status.json").read_text())
    assert (run.status.step, run.status.total_steps) == (100, 100)


def test_of_two_launches_one_wins(run: store.RunDir) -> None:
    assert run.begin_attempt("first") is not None
    assert run.begin_attempt("second") is None
    run.request("stop")
    run.update(state=State.FAILED)
    again = run.begin_attempt("again")
    assert again is not None
    assert again.attempt == 2
    assert run.requests(ByteCursor()) == []
