"""The detached process that owns a run: `python -m workbench.processes.driver RUN_DIR`.

It brings up the gang, copies the worker's progress into status.json, restarts the gang after a failure, and writes how the run ended.
SIGTERM makes it end the gang at once. Where its allocation ends before the run does, it is warned, saves, and exits with `base.AGAIN`.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.monitoring import hang
from workbench.monitoring.hang import HangWatch
from workbench.processes import PRELOAD, log
from workbench.rundir import opening
from workbench.rundir.files import ByteCursor
from workbench.rundir.lines import Event
from workbench.rundir.store import LIVE, Changes, RunDir, State
from workbench.settings import Watch

if TYPE_CHECKING:
    from distributed import Client

    from workbench.backends.base import Task
    from workbench.rundir.beats import Beat
    from workbench.settings.spec import Experiment

STATUS_INTERVAL_S = 0.5
BEAT_INTERVAL_S = 10.0
LOG_INTERVAL_S = 30.0
SERVER_RESTARTS = 3


class Progress:
    """Follows rank 0's events and merges what matters to a list of runs into status.json, at most twice a second."""

    def __init__(self, run: RunDir, clock: Callable[[], float] = time.monotonic):
        self.end: str | None = None
        self.running = False
        self._run = run
        self._clock = clock
        self._attempt = run.status.attempt
        self._cursor = ByteCursor()
        self._changes: Changes = {}
        self._alarm: str | None = None
        self._said = ""  # what an alarm replaces
        self._log = log.Log(LOG_INTERVAL_S)
        self._written = self._beaten = -math.inf
        for _ in run.events(self._cursor):
            pass  # earlier attempts' events

    def poll(self, attempt: int) -> bool:
        """Take what is new. Whether there was an event."""
        came = False
        if attempt != self._attempt:
            self._attempt, self.end, self.running = attempt, None, False
            log.say(f"restarting as attempt {attempt}")
            self._run.move((State.QUEUED, State.STARTING, State.RUNNING), state=State.STARTING)
            self._run.update(attempt=attempt, message=f"restarting as attempt {attempt}")
            self._changes.pop("message", None)  # of the attempt before
        for event in self._run.events(self._cursor):
            self._take(event)
            came = True
        if self._changes and self._clock() - self._written >= STATUS_INTERVAL_S:
            self.flush()
        if self._clock() - self._beaten >= BEAT_INTERVAL_S:
            self._beaten = self._clock()
            self._run.beat()
        return came

    def alarm(self, message: str) -> None:
        """Put an alarm's message into the status. With "" it is over: what it replaced stands there again, or what was said meanwhile."""
        said = self._changes.get("message", self._run.status.message)
        if said != self._alarm:
            self._said = said
        self._alarm = message or None
        self._changes["message"] = message or self._said

    def flush(self) -> None:
        if self._changes:
            if self.running:  # whoever looked at the queue may have taken it for waiting
                self._run.move((State.QUEUED, State.STARTING), state=State.RUNNING)
            self._run.update(**self._changes)
            self._changes = {}
            self._written = self._clock()

    def _take(self, event: Event) -> None:
        self._log.event(event["kind"], event)
        match event["kind"]:
            case "state":
                self.running = True
                if "step" in event:
                    self._changes["step"] = event["step"]
                if "total_steps" in event:
                    self._changes["total_steps"] = event["total_steps"]
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
    from workbench.backends.base import Task
    from workbench.settings.placement import servers as placed

    driver = (sys.executable, "-m", "workbench.processes.driver", str(run.path))
    servers = []
    for server in placed(experiment.algorithm, experiment.model):
        gang = experiment.backend.serving(server.name, server.processes, max(SERVER_RESTARTS, experiment.backend.max_restarts))
        command = (sys.executable, "-m", "workbench.processes.server", str(run.path), server.name)
        servers.append(Task(run.path, command, driver, gang, attempt, role=server.name, preload=PRELOAD))
    return Task(
        run_dir=run.path,
        command=(sys.executable, "-m", "workbench.processes.worker", str(run.path)),
        driver=driver,
        config=experiment.backend,
        attempt=attempt,
        servers=servers,
        preload=PRELOAD,
    )


def begin(run: RunDir) -> int:
    """This driver's attempt: the next one where its job was started again. What it says goes to the attempt's log, for its owner alone."""
    from workbench.backends import base

    os.umask(0o077)

    restarted = int(os.environ.get(base.RESTARTS, "0")) > 0
    attempt = (run.again("the job was started again") if restarted else run.status).attempt
    with open(run.log_path("driver", attempt), "ab", opener=opening.opener) as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    return attempt


def drive(run: RunDir, task: Task, watch: Watch | None = None) -> State:
    """Run the gang to its end and write it into the status. Returns the final state."""
    try:
        state, message = _Drive(run, task, watch or Watch()).go()
    except OSError as error:
        state, message = State.FAILED, str(error)
    if state == State.FAILED and (full := _disk_full(run.path)):
        message = f"{full}\n{message}"
    try:
        log.say(f"{state}: {message}" if message else str(state))  # before who follows the log sees that the run has ended
    finally:
        run.move(LIVE, state=state, message=message)
    return state


def exit_code(state: State) -> int:
    from workbench.backends import base

    return {State.COMPLETED: 0, State.STOPPED: 0, State.KILLED: 0, State.PREEMPTED: base.AGAIN}.get(state, 1)


class _Drive:
    """One driver's gang from its start to its end."""

    def __init__(self, run: RunDir, task: Task, watch: Watch):
        from workbench.backends import base

        self._run, self._task = run, task
        self._progress, self._requests = Progress(run), ByteCursor()
        self._hangs = HangWatch(run, watch, {each.role: each.config.world_size for each in (task, *task.servers)})
        self._stopping = self._terminated = self._warned = self._ran = False
        self._warning = Path(os.environ[base.WARNED]) if base.WARNED in os.environ else None
        signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, *_: object) -> None:
        """Where an allocation may end early, this is how schedulers say so; elsewhere somebody kills the run."""
        if self._warning:
            self._warning.touch()
        else:
            self._terminated = True

    def go(self) -> tuple[State, str]:
        from workbench.backends import base as backends
        from workbench.backends.supervisor import GangEnded, GangFailed, supervise_with_servers

        run, task = self._run, self._task
        try:
            queued = run.move((State.QUEUED,), state=State.STARTING, message="starting the ranks: importing torch and megatron-core")
            if queued and self.watch(task.attempt):
                with backends.find(task.config.name).gang(task) as client:
                    self._hangs.restart = functools.partial(_end_ranks, client, run)
                    supervise_with_servers(client, task, self.watch)
            else:
                raise GangEnded
        except GangEnded:
            if self._leaves:
                return self._left("the allocation ends")
            if self._terminated:
                return State.KILLED, "killed; resume continues from the last checkpoint"
            if self._ran:
                return State.STOPPED, "stopped; resume continues from the last checkpoint"
            return State.STOPPED, "stopped before the first step"
        except GangFailed as error:
            hung = f"hang: {self._hangs.ended}\n" if self._hangs.ended else ""
            return self._left(f"the allocation ends; {error}") if self._leaves else (State.FAILED, f"{hung}{error}")
        except TimeoutError as error:
            return self._left(str(error)) if task.config.requeues and self._ran else (State.FAILED, str(error))
        finally:
            self._progress.poll(run.status.attempt)
            self._progress.flush()
        if self._progress.end == "stopped" and self._leaves:
            return self._left(f"saved at step {run.status.step} before the allocation ends")
        ends = {"completed": (State.COMPLETED, ""), "stopped": (State.STOPPED, "stopped; resume continues from the last checkpoint")}
        return ends.get(self._progress.end or "", (State.FAILED, f"the ranks exited with 0 before the end of the run; see {run.logs}"))

    def watch(self, attempt: int) -> bool:
        """Whether the gang is still wanted; asked a few times a second."""
        if self._progress.poll(attempt):
            self._hangs.moved()
        if self._hangs.poll(attempt, self._progress.running):
            self._progress.alarm(f"hang: {self._hangs.message}" if self._hangs.message else "")
        self._ran = self._ran or self._progress.running
        requests = self._run.requests(self._requests)
        self._stopping = self._stopping or any(request["request"] == "stop" and "attempt" not in request for request in requests)
        if self._warning and not self._warned and self._warning.exists():
            self._warned = True
            self._run.request("stop", attempt=attempt)  # of this attempt alone: the next one continues
            log.say("warned: the allocation ends soon")
        return not self._terminated and (self._progress.running or not (self._stopping or self._warned))

    @property
    def _leaves(self) -> bool:
        return self._warned and not self._stopping and not self._terminated

    def _left(self, why: str) -> tuple[State, str]:
        """What becomes of a run that its allocation leaves unfinished."""
        if self._task.config.requeues:
            return State.PREEMPTED, f"{why}; requeued, to continue from its last checkpoint"
        return State.STOPPED, f"{why}; resume continues from the last checkpoint"


def _end_ranks(client: Client, run: RunDir, ranks: Sequence[Beat]) -> None:
    """On whichever nodes they are. The gang's supervisor sees them die, and continues as after any death."""
    client.run(hang.kill, str(run.path), [(beat.host, beat.pid) for beat in ranks], on_error="ignore")


def _disk_full(path: Path) -> str:
    free = shutil.disk_usage(path).free
    return f"the disk of {path} is full ({free >> 10} KiB free): make room, then resume the run" if free < 1 << 20 else ""


def main() -> int:
    run = RunDir(Path(sys.argv[1]))
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # of a killed driver it would be the log's last word
    attempt = begin(run)
    from workbench.settings import stored

    experiment = stored.experiment(run)
    return exit_code(drive(run, task_of(run, experiment, attempt), experiment.watch))


if __name__ == "__main__":
    sys.exit(main())
