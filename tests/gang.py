"""Functions of tests that several ranks run together: `run(function, folder, layout)`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from workbench.backends._store import FILE, STORE
from workbench.settings.layout import Layout


def run(function: Callable[[Path], None], folder: Path, layout: Layout, data: int = 1) -> None:
    """Call `function(folder)` on every rank of a layout, `data` copies of it, each a process; an exception on any fails the test."""
    ranks = layout.ranks * data
    store = folder / "store"
    base = {"WORLD_SIZE": str(ranks), STORE: f"{FILE}{store}", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    command = [sys.executable, "-m", "tests.gang", function.__module__, function.__name__, str(folder), json.dumps(asdict(layout))]
    store.unlink(missing_ok=True)
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **base, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        said = [process.communicate(timeout=180)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    failed = [rank for rank, process in enumerate(processes) if process.returncode]
    assert not failed, f"rank {failed[0]} of {ranks}:\n{said[failed[0]][-6000:]}"


def main() -> None:
    module, name, folder, layout = sys.argv[1:]
    from workbench.engine import parallel

    parallel.start(Layout(**json.loads(layout)))
    getattr(import_module(module), name)(Path(folder))
    parallel.barrier()
    parallel.stop()


if __name__ == "__main__":
    main()
