"""The detached process that owns a run: `python -m workbench.driver RUN_DIR`.

It brings up the gang, copies the worker's progress into status.json, restarts the gang after a failure, and writes how the run ended.
SIGTERM makes it end the gang at once.
"""

from __future__ import annotations

import math
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.store import LIVE, Cursor, RunDir, State

if TYPE_CHECKING:
    from backends.base import Task
    from workbench.spec import Experiment

STATUS_INTERVAL_S = 0.5
BEAT_INTERVAL_S = 10.0
SERVER_RESTARTS = 3


class Progress:
    """Follows rank 0's events and merges what matters to a list of runs into status.json, at most twice a second."""

    def __init__(self, run: RunDir, clock: Any = time.monotonic):
        self.end: str | None = None
        self.running = False
        self._run = run
        self._clock = clock
        self._attempt = run.status.attempt
        self._cursor = Cursor()
        self._changes: dict[str, Any] = {}
        self._written = self._beaten = -math.inf
        for _ in run.events(self._cursor):
            pass  # earlier attempts' events

    def poll(self, attempt: int) -> None:
        if attempt != self._attempt:
            self._attempt, self.end, self.running = attempt, None, False
            self._run.move((State.QUEUED, State.STARTING, State.RUNNING), state=State.STARTING)
            self._run.update(attempt=attempt, message=f"restarting as attempt {attempt}")
        for event in self._run.events(self._cursor):
            self._take(event)
        if self._changes and self._clock() - self._written >= STATUS_INTERVAL_S:
            self.flush()
        if self._clock() - self._beaten >= BEAT_INTERVAL_S:
            self._beaten = self._clock()
            self._run.beat()

    def flush(self) -> None:
        if self._changes:
            self._run.update(**self._changes)
            self._changes, self._written = {}, self._clock()

    def _take(self, event: dict[str, Any]) -> None:
        match event["kind"]:
            case "state":
                self.running = True
                self._changes |= {key: event[key] for key in ("step", "total_steps") if key in event}
                if self._run.move((State.QUEUED, State.STARTING), state=State.RUNNING):
                    self._changes["message"] = ""
            case "phase":
                share = f" ({event['done']}/{event['total']})" if event.get("total") else ""
                self._changes["message"] = event["message"] + share
            case "step":
                self._changes["step"] = event["step"]
            case "end":
                self._changes["step"] = event["step"]
                self.end = event["reason"]


def task_of(run: RunDir, experiment: Experiment, attempt: int) -> Task:
    """What the backend is asked to run."""
    from backends.base import Task
    from workbench.placement import servers as placed

    driver = (sys.executable, "-m", "workbench.driver", str(run.path))
    servers = []
    for server in placed(experiment.algorithm, experiment.model):
        gang = {"num_nodes": 1, "ranks_per_node": server.processes, "max_restarts": max(SERVER_RESTARTS, experiment.backend.max_restarts)}
        command = (sys.executable, "-m", "workbench.serve", str(run.path), server.role)
        servers.append(Task(run.path, command, driver, experiment.backend.model_copy(update=gang), attempt, role=server.role))
    return Task(
        run_dir=run.path,
        command=(sys.executable, "-m", "workbench.worker", str(run.path)),
        driver=driver,
        config=experiment.backend,
        attempt=attempt,
        servers=servers,
    )


def drive(run: RunDir, task: Task) -> State:
    """Run the gang to its end and write it into the status. Returns the final state."""
    terminated: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
    try:
        state, message = _drive(run, task, terminated)
    except OSError as error:
        state, message = State.FAILED, str(error)
    if state == State.FAILED and (full := _disk_full(run.path)):
        message = f"{full}\n{message}"
    run.move(LIVE, state=state, message=message)
    print(f"{state}: {message}", flush=True)
    return state


def _drive(run: RunDir, task: Task, terminated: list[int]) -> tuple[State, str]:
    from backends import base as backends
    from backends.supervisor import GangEnded, GangFailed, supervise_with_servers

    progress = Progress(run)
    requests = Cursor()
    stopping = False

    def watch(attempt: int) -> bool:
        nonlocal stopping
        progress.poll(attempt)
        stopping = stopping or any(request["request"] == "stop" for request in run.requests(requests))
        return not terminated and (progress.running or not stopping)

    try:
        queued = run.move((State.QUEUED,), state=State.STARTING, message="starting the ranks")
        if queued and watch(task.attempt):
            with backends.find(task.config.name).gang(task) as client:
                supervise_with_servers(client, task, watch)
        else:
            raise GangEnded
    except GangEnded:
        return State.STOPPED, "killed; resume goes on from the last checkpoint" if terminated else "stopped before the first step"
    except (GangFailed, TimeoutError) as error:
        return State.FAILED, str(error)
    finally:
        progress.poll(run.status.attempt)
        progress.flush()
    ends = {"completed": (State.COMPLETED, ""), "stopped": (State.STOPPED, "stopped; resume goes on from the last checkpoint")}
    return ends.get(progress.end or "", (State.FAILED, f"the ranks exited with 0 before the end of the run; see {run.logs}"))


def _disk_full(path: Path) -> str:
    free = shutil.disk_usage(path).free
    return f"the disk of {path} is full ({free >> 10} KiB free): make room, then resume the run" if free < 1 << 20 else ""


def main() -> int:
    run = RunDir(Path(sys.argv[1]))
    from workbench.spec import Experiment

    task = task_of(run, Experiment.from_yaml(run.spec_path.read_text()), run.status.attempt)
    return 0 if drive(run, task) in (State.COMPLETED, State.STOPPED) else 1


if __name__ == "__main__":
    sys.exit(main())
