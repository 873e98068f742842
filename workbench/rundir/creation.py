"""When runs were created: the order of their list, in which a name or a clock's zone does not count."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

from workbench.rundir.files import read_json
from workbench.rundir.opening import Unreadable

KEPT = 16384


def time_of(run: Path) -> float:
    """As the run's status says, in seconds since 1970; where that cannot be read when its spec was written, and 0 where that cannot be told either."""
    try:
        folder = run.lstat()
        return _recorded(run, folder.st_dev, folder.st_ino)
    except (Unreadable, OSError):
        return _written(run / "spec.yaml")


@lru_cache(maxsize=KEPT)
def _recorded(run: Path, device: int, inode: int) -> float:
    """It stays the same as long as the folder does. Raises Unreadable and FileNotFoundError."""
    created = read_json(run / "status.json").get("created")
    if isinstance(created, bool) or not isinstance(created, int | float) or not math.isfinite(created):
        raise Unreadable(run / "status.json", "does not tell when the run was created")
    return float(created)


def _written(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0
