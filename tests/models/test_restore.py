"""What is left on the disk when a policy goes on from an earlier step than its critic has come to."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from workbench.models.journal import Journal
from workbench.models.roles.critic import forget_after
from workbench.rundir.store import COMPLETE


def test_checkpoints_of_steps_that_are_done_anew_are_dropped(tmp_path: Path) -> None:
    """A critic server that is started again takes its newest, and `keep_last` the newest ones: neither may be of the steps taken back."""
    for step in (8, 10, 12, 30):
        (tmp_path / str(step)).mkdir()
        (tmp_path / str(step) / COMPLETE).touch()
    (tmp_path / "14").mkdir()
    forget_after(tmp_path, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "14", "8"]
    forget_after(tmp_path, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["14"]
    forget_after(tmp_path / "none", 0)


def test_a_lesson_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, synced = os.fsync, []

    def fsync(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        assert not list(tmp_path.glob("*.npz"))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    Journal(tmp_path).write(3, {"tokens": np.arange(4)})
    assert synced == [str(tmp_path / ".3.partial")]
    assert Journal(tmp_path).read(3)["tokens"].tolist() == [0, 1, 2, 3]
