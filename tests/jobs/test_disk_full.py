"""A launch on a nearly full disk, on a small file system of the test's own: no folder is left, or a failed run that can be resumed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from workbench import api
from workbench.backends import base
from workbench.backends.base import Job
from workbench.jobs import launch
from workbench.rundir import listing
from workbench.rundir.store import State
from workbench.settings.spec import compose

PAGE = 4096


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", place], check=True)
    monkeypatch.setenv("WORKBENCH_RUNS", str(place / "runs"))
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_launch_on_a_full_disk_leaves_nothing_or_a_run_that_can_be_resumed(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every number of free pages from none to more than enough; the backend writes its log as the local one does."""
    killed = []

    def begin(task: base.Task) -> Job:
        with task.log_path("driver", task.attempt).open("w") as file:
            file.write("x" * PAGE)
        return Job("local", "999999999", "elsewhere", 0.0)

    monkeypatch.setattr(base, "find", lambda name: SimpleNamespace(launch=begin, kill=killed.append))
    experiment = compose(["experiment=dpo_demo"])
    outcomes = set()
    for free in range(0, 45):
        with (disk / "full").open("wb") as file:
            file.write(bytes(512 * 1024 - 4 * PAGE - PAGE * free))
        try:
            run = launch.start(experiment)
        except OSError as error:
            assert error.errno == 28
            left = listing.list_runs(listing.runs_root())
            assert list(listing.runs_root().iterdir()) == [run.path for run in left]
            (disk / "full").unlink()
            if left:
                status = left[0].status
                assert status.state == State.FAILED and "No space left on device" in status.message
                launch.launch(left[0], base.Task(left[0].path, (), (), experiment.backend, 2))
                assert left[0].status.attempt == 2
            outcomes.add("failed" if left else "nothing")
        else:
            outcomes.add("launched")
            assert api.get(run.id).problems() == []
        for run in listing.list_runs(listing.runs_root()):
            subprocess.run(["rm", "-r", run.path], check=True)
    assert outcomes == {"nothing", "failed", "launched"}
