"""Folders of one process's own on this machine, for sockets and for what must not lie on a network file system.

`<temporary folder>/workbench-<uid>-<random>/` is closed to other users and goes with the block that made it. A process that is killed leaves
its folder, and shared memory whose names begin with the folder's: the next `sweep` on the machine removes both. A lock that the kernel drops
with the process tells what is still in use.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK, SHARED_MEMORY = ".lock", "shared-memory"
SHM = Path("/dev/shm")
LONGEST_SOCKET_PATH = 100
"""A socket's path has at most 107 bytes (unix(7)); the names within a folder take the rest."""


@contextmanager
def folder() -> Iterator[Path]:
    """A new folder, mode 0700, removed at the end together with the shared memory that is its own (see `owns`)."""
    sweep()
    new = Path(tempfile.mkdtemp(prefix="workbench-new-", dir=_root()))
    with (new / LOCK).open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = new.rename(_root() / f"{_prefix()}{secrets.token_hex(6)}")  # nobody sweeps what has this name and is locked
        try:
            yield path
        finally:
            _remove(path)


def owns(path: Path, segments: set[str]) -> None:
    """Name shared memory (files of /dev/shm) that goes with the folder though its name does not begin as the folder's does."""
    (path / SHARED_MEMORY).write_text("\n".join(sorted(segments)))


def sweep() -> list[Path]:
    """Remove what killed processes of this user left on this machine. Returns the folders that were removed."""
    removed = stale()
    for path in removed:
        _remove(path)
    return removed


def stale() -> list[Path]:
    """The folders that killed processes of this user left on this machine."""
    return [path for path in sorted(_root().glob(f"{_prefix()}*")) if _ours(path) and not _in_use(path)]


def _root() -> Path:
    """Where temporary files go, unless a socket's path would be too long there."""
    root = Path(tempfile.gettempdir())
    return root if len(str(root)) < LONGEST_SOCKET_PATH - 60 else Path("/tmp")


def _prefix() -> str:
    return f"workbench-{os.getuid()}-"


def _ours(path: Path) -> bool:
    """Others may write in the temporary folder, under any name."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid()


def _in_use(path: Path) -> bool:
    """Whether its process still runs. A folder without a lock is one whose removal was interrupted."""
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _remove(path: Path) -> None:
    named = path / SHARED_MEMORY
    names = set(named.read_text().split()) if named.is_file() else set()
    for segment in [*SHM.glob(f"{path.name}*"), *(SHM / name for name in names if "/" not in name)]:
        with suppress(FileNotFoundError, PermissionError):  # another user's, under a name made to look like ours
            segment.unlink()
    shutil.rmtree(path, ignore_errors=True)
