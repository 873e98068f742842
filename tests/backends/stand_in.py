"""Stand-ins for the parts of a run that another room owns: a driver whose ranks run a small script instead of the worker.

`python -m tests.backends.stand_in RUN_DIR SCRIPT BACKEND SETTINGS WATCH` is the driver; for the script see `stand_in_rank`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from workbench import api
from workbench.backends import base
from workbench.jobs.launch import launch
from workbench.processes import driver
from workbench.rundir import store
from workbench.settings import Watch

BUSY = "keep = bytearray(200 << 20); beats.begin(run, 'actor'); end = time.time() + 900\nwhile time.time() < end: pass"
"""A rank that is busy for a quarter of an hour, with 200 MiB from its first beat on."""


def curve(n: int) -> list[float]:
    """The losses of `steps(n)`."""
    losses = [1.0]
    for step in range(1, n + 1):
        losses.append(0.9 * losses[-1] + 1 / step)
    return losses[1:]


def task(run: store.RunDir, script: str, attempt: int = 1, backend: str = "local", watch: Watch | None = None, **settings: Any) -> base.Task:
    config = base.find(backend).Config(**settings)
    words = ("-m", "tests.backends.stand_in", str(run.path), script, backend, json.dumps(settings), (watch or Watch()).model_dump_json())
    command = (sys.executable, "-m", "tests.backends.stand_in_rank", str(run.path), script)
    return base.Task(run.path, command, (sys.executable, *words), config, attempt, preload=("workbench.rundir.beats",))


def start(root: Path, script: str, name: str = "stand-in", **settings: Any) -> api.Run:
    run = store.create(root, name, "{}")
    launch(run, task(run, script, **settings))
    return api.Run(run)


def again(run: api.Run, script: str, **settings: Any) -> None:
    launch(run.dir, task(run.dir, script, attempt=run.dir.status.attempt + 1, **settings))


def main() -> int:
    path, script, backend, settings, watch = sys.argv[1:]
    run = store.RunDir(Path(path))
    attempt = driver.begin(run)
    made = task(run, script, attempt, backend, **json.loads(settings))
    return driver.exit_code(driver.drive(run, made, Watch.model_validate_json(watch)))


if __name__ == "__main__":
    sys.exit(main())
