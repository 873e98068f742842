"""Folders of one process's own: what killed processes left is removed, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workbench.backends import scratch


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's folder of temporary files."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr(scratch, "_root", lambda: folder)
    return folder


def test_a_folder_goes_with_its_block_and_what_is_named_after_it(temporary: Path) -> None:
    with scratch.folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        segment, named = scratch.SHM / f"{folder.name}-segment", scratch.SHM / f"other-{folder.name}"
        for path in (segment, named):
            path.touch()
        scratch.owns(folder, {named.name})
        assert scratch.sweep() == []
    assert not folder.exists() and not segment.exists() and not named.exists()


def test_what_killed_processes_left_is_removed_and_nothing_else(temporary: Path) -> None:
    """Left: a folder whose lock nobody holds, and one whose removal was interrupted. Others': in use, a link, of another name, of another user."""
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    prefix = f"workbench-{os.getuid()}-"
    left, half_removed, link = (temporary / f"{prefix}{name}" for name in ("left", "half", "link"))
    for folder in (left, half_removed):
        folder.mkdir()
        (folder / "triton").mkdir()
    (left / scratch.LOCK).touch()
    link.symlink_to(elsewhere)
    theirs = temporary / f"workbench-{os.getuid() + 1}-x"
    theirs.mkdir()
    with scratch.folder() as used:
        assert not left.exists() and not half_removed.exists()
        assert used.exists() and link.is_symlink() and elsewhere.exists() and theirs.exists()


def test_a_segments_name_leads_nowhere_else(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with scratch.folder() as folder:
        scratch.owns(folder, {f"../../{tmp_path}/mine"})
    assert (tmp_path / "mine").exists()
