"""Stand-ins for the parts of a run that another room owns: a driver whose ranks run a small script instead of the worker.

`python tests/backends/stand_in.py RUN_DIR SCRIPT BACKEND SETTINGS WATCH` is the driver; the script gets the run's folder as argv[1].
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

RANK = '''
import json, os, signal, sys, time
from pathlib import Path
from workbench.rundir import beats
from workbench.rundir.events import EventWriter
from workbench.rundir.files import ByteCursor, write_atomic
from workbench.rundir.store import RunDir
run, rank, attempt = RunDir(Path(sys.argv[1])), int(os.environ["RANK"]), int(os.environ["WORKBENCH_ATTEMPT"])
events = EventWriter(run) if rank == 0 else None
def write(kind, **values):
    events and events.write(kind, **values)
def stopping():
    return any(request["request"] == "stop" and request.get("attempt") in (None, attempt) for request in run.requests(ByteCursor()))
def steps(n, seconds=0.01, keep=0, hold=0):
    """Learns one number; with `keep` it is saved every so many steps and at a stop, and the next attempt goes on from there.

    With `hold` the first attempt stands still after that step: what is done to it there need not be quick.
    """
    write("phase", message="loading the model", done=1, total=1)
    saved = run.path / f"saved-{rank}.json"
    first, loss = json.loads(saved.read_text()) if saved.exists() else (0, 1.0)
    write("state", state="running", step=first, total_steps=n)
    for step in range(first + 1, n + 1):
        time.sleep(seconds)
        loss = 0.9 * loss + 1 / step
        write("step", step=step, metrics={"loss": loss})
        while not (stop := stopping()) and step == hold and attempt == 1:
            time.sleep(0.05)
        if keep and (stop or step % keep == 0):
            write_atomic(saved, json.dumps([step, loss]))
        if stop:
            write("end", reason="stopped", step=step)
            sys.exit(0)
    write("end", reason="completed", step=n)
'''
BUSY = "from workbench.rundir import beats; beats.begin(run, 'actor'); keep = bytearray(200 << 20); end = time.time() + 900\nwhile time.time() < end: pass"
"""A rank that is busy for a quarter of an hour, with 200 MiB."""


def curve(n: int) -> list[float]:
    """The losses of `steps(n)`."""
    losses = [1.0]
    for step in range(1, n + 1):
        losses.append(0.9 * losses[-1] + 1 / step)
    return losses[1:]


def task(run: store.RunDir, script: str, attempt: int = 1, backend: str = "local", watch: Watch | None = None, **settings: Any) -> base.Task:
    config = base.find(backend).Config(**settings)
    words = [sys.executable, str(Path(__file__)), str(run.path), script, backend, json.dumps(settings), (watch or Watch()).model_dump_json()]
    return base.Task(run.path, (sys.executable, "-c", RANK + script, str(run.path)), words, config, attempt)


def start(root: Path, script: str, name: str = "stand-in", **settings: Any) -> api.Run:
    run = store.create(root, name, "{}")
    launch(run, task(run, script, **settings))
    return api.Run(run)


def again(run: api.Run, script: str, **settings: Any) -> None:
    launch(run.dir, task(run.dir, script, attempt=run.dir.status.attempt + 1, **settings))


if __name__ == "__main__":
    path, script, backend, settings, watch = sys.argv[1:]
    run = store.RunDir(Path(path))
    attempt = driver.begin(run)
    made = task(run, script, attempt, backend, **json.loads(settings))
    sys.exit(driver.exit_code(driver.drive(run, made, Watch.model_validate_json(watch))))
