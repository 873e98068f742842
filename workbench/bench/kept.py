"""Where a measurement keeps its runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def runs_in(folder: Path) -> Iterator[None]:
    """Within, runs are kept in this folder."""
    before = os.environ.get("WORKBENCH_RUNS")
    os.environ["WORKBENCH_RUNS"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("WORKBENCH_RUNS") if before is None else os.environ.update(WORKBENCH_RUNS=before)
