"""Finding runs, and what can be asked of one. (Whole runs: test_whole_runs.)"""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.backends import stand_in
from workbench import api
from workbench.backends.base import Job
from workbench.processes import driver
from workbench.rundir import store
from workbench.rundir.store import State


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_RUNS", str(tmp_path))
    return tmp_path


@pytest.fixture
def run(root: Path) -> api.Run:
    return api.Run(store.create(root, "one", "{}"))


def test_get_by_id_prefix_suffix_and_latest(root: Path) -> None:
    for name in ("20260101-000000-first-aaaa", "20260102-000000-second-bbbb"):
        made = store.create(root, "x", "{}")
        made.path.rename(root / name)
    assert [run.id[-4:] for run in api.runs()] == ["bbbb", "aaaa"]
    for word in ("20260102-000000-second-bbbb", "20260102", "bbbb", "latest"):
        assert api.get(word).id.endswith("bbbb")
    with pytest.raises(ValueError, match=r"2 runs match '2026'.*second-bbbb, 20260101"):
        api.get("2026")
    with pytest.raises(ValueError, match="no runs match 'nope'; the newest are: 20260102"):
        api.get("nope")
    with pytest.raises(ValueError, match="match ''"):
        api.get("")


def test_folders_that_are_no_runs_are_passed_over(root: Path, run: api.Run) -> None:
    (root / "half-made").mkdir()
    (root / "file").touch()
    assert [found.id for found in api.runs()] == [run.id]


def test_the_runs_of_others_are_passed_over(root: Path, run: api.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that this user may not read, where several share a folder of runs; root may read everything, so the kernel's answers are played."""
    theirs = store.create(root, "theirs", "{}").path
    real = os.access
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(os, "access", lambda path, mode: theirs not in Path(path).parents and real(path, mode))
    assert [found.id for found in api.runs()] == [run.id]


def test_an_end_is_never_overwritten(run: api.Run) -> None:
    """A reader that saw a dead driver, and a stop that came too late, leave the driver's last word alone."""
    run.dir.update(state=State.COMPLETED, job=asdict(Job("local", "999999999", socket.gethostname(), 0.0)))
    assert run.status.state == State.COMPLETED
    assert run.dir.move(store.LIVE, state=State.FAILED) is None
    for verb in (run.stop, run.kill, run.resume):
        with pytest.raises(ValueError, match="completed"):
            verb()


def test_killed_in_the_queue_never_starts(run: api.Run) -> None:
    """The driver of a run that was ended before it came up leaves it ended."""
    run.dir.begin_attempt("waiting")
    run.kill()
    assert driver.drive(run.dir, stand_in.task(run.dir, "steps(1)")) == State.STOPPED
    status = run.dir.status
    assert (status.state, status.message.partition(";")[0]) == (State.KILLED, "killed")
    with pytest.raises(ValueError, match="has already been killed"):
        run.stop()
    assert run.logs() == []


def test_wait_gives_up(run: api.Run) -> None:
    with pytest.raises(TimeoutError, match=r"is still created after 0\.1 s"):
        run.wait(0.1)


def test_logs_by_role_and_rank(run: api.Run) -> None:
    for name in ("driver.1", "actor-0.1", "actor-1.1", "actor-10.1", "actor-0.2"):
        (run.dir.logs / f"{name}.log").write_text(f"{name}\n" * 3)
    assert [path.stem for path in run.logs("actor", 0)] == ["actor-0.1", "actor-0.2"]
    assert [path.stem for path in run.logs("actor", 1)] == ["actor-1.1"]
    assert run.log_tail("driver", lines=2) == "driver.1\ndriver.1"
    assert run.log_tail("actor", lines=1, rank=10) == "actor-10.1"
    assert run.log_tail("critic") == ""


def test_the_newest_run_is_the_one_created_last(root: Path) -> None:
    """Whatever its name, as of two runs of one second, of a folder that was renamed, or of a clock in another zone."""
    names = ("20260102-000000-zebra-aaaa", "20260102-000000-apple-bbbb", "my-best", "20260101-230000-west-cccc")
    for name in names:
        store.create(root, "x", "{}").path.rename(root / name)
    assert [run.id for run in api.runs()] == list(reversed(names))
    assert api.get("latest").id == names[-1]
    shutil.copytree(root / names[0], root / "damaged")
    (root / "damaged" / "status.json").write_text("damaged")
    os.utime(root / "damaged" / "spec.yaml", (0, 0))
    assert [run.id for run in api.runs()] == [*reversed(names), "damaged"]
