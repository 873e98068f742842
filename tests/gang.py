"""Functions of tests that several ranks run together: `run(function, folder, layout)`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from workbench.backends._store import FILE, STORE
from workbench.backends.starting import run_together
from workbench.processes import PRELOAD
from workbench.settings.layout import Layout


def run(function: Callable[[Path], None], folder: Path, layout: Layout, data: int = 1) -> None:
    """Call `function(folder)` on every rank of a layout, `data` copies of it, each a process; an exception on any fails the test."""
    ranks = layout.ranks * data
    store = folder / "store"
    base = {"WORLD_SIZE": str(ranks), STORE: f"{FILE}{store}", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    command = (sys.executable, "-m", "tests.gang", function.__module__, function.__name__, str(folder), json.dumps(asdict(layout)))
    store.unlink(missing_ok=True)
    logs = [folder / f"rank-{rank}.log" for rank in range(ranks)]
    failed = run_together(command, [{**base, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)], logs, PRELOAD)
    assert failed is None, f"rank {failed} of {ranks}:\n{logs[failed].read_text()[-6000:]}"


def main() -> int:
    module, name, folder, layout = sys.argv[1:]
    from workbench.engine import parallel

    parallel.start(Layout(**json.loads(layout)))
    getattr(import_module(module), name)(Path(folder))
    parallel.barrier()
    parallel.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
