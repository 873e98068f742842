"""A server's write-ahead journal: each lesson is on the disk before it is learnt, so that a killed server comes back with none lost or twice.

<folder>/<step>.npz    the request of one step; removed when a checkpoint has it
<folder>/<step>.json   what was answered, once it was
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from workbench.rundir.files import write_atomic


class Journal:
    """The lessons since the last checkpoint, by step."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, step: int, arrays: dict[str, np.ndarray]) -> None:
        """Keep a request, durably, before it is acted on. Raises OSError on a full disk."""
        partial = self.folder / f".{step}.partial"
        with partial.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / f"{step}.npz")

    def read(self, step: int) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{step}.npz", allow_pickle=False) as file:
            return {name: file[name] for name in file.files}

    def answer(self, step: int, values: dict[str, float]) -> None:
        write_atomic(self.folder / f"{step}.json", json.dumps(values))

    def answered(self, step: int) -> dict[str, float] | None:
        path = self.folder / f"{step}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def steps(self) -> list[int]:
        """The steps of the requests that are kept, ascending."""
        return sorted(int(path.stem) for path in self.folder.glob("[0-9]*.npz"))

    def forget(self, keep: range) -> None:
        """Drop every step outside `keep`."""
        for path in self.folder.glob("[0-9]*.*"):
            if int(path.stem) not in keep:
                path.unlink(missing_ok=True)
