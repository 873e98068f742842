"""This machine: a detached driver process, and a dask LocalCluster with one worker a "node".

The driver is in a session of its own, with no open file or terminal of the launcher's, so a run outlives the app, the notebook or
the shell it was started from. With `num_nodes=2` the machine plays two nodes.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import psutil
from pydantic import Field

from workbench.backends import _machine, _tls, base, beside, forking
from workbench.backends.base import ClusterSnapshot, Finding, Job, JobStatus, Task

if TYPE_CHECKING:
    from distributed import Client

CLOCK_TOLERANCE_S = 5.0  # of a job without a mark, which had ended before it was looked at, or is of an earlier version
KILL_TIMEOUT_S = 10.0
DRIVERS = ("workbench.processes.driver", "workbench.jobs.stage")
"""The modules that drive a run."""


class Config(base.Config):
    """Nothing beside what every backend has."""

    name: Literal["local"] = Field(default="local", description="This machine.")


def check(task: Task) -> list[Finding]:
    """Whether each rank has a core and, where there are GPUs, one of those."""
    ranks = task.config.world_size + sum(server.config.world_size for server in task.servers)
    node = _machine.survey().nodes[0]
    gpus = f" and {node.gpus} GPUs" if node.gpus else ""
    message = f"{ranks} {'process' if ranks == 1 else 'processes'} on {node.cpus} cores{gpus}"
    if ranks > (node.gpus or node.cpus):
        return [Finding("this machine", "warning", f"{message}: they share, and wait for each other", "backend.ranks_per_node")]
    return [Finding("this machine", "ok", message)]


def launch(task: Task) -> Job:
    """Start `task.driver` detached. Raises OSError when its log cannot be opened or no process can be started."""
    log_path = task.log_path("driver", task.attempt)
    log_path.touch(mode=0o600)
    command, environment = _command(task), {**os.environ, **task.env}
    pid = _forked(command, environment, log_path) or _started(command, environment, log_path)
    return Job(backend="local", id=str(pid), host=socket.gethostname(), started=time.time(), mark=mark(pid))


def _command(task: Task) -> Sequence[str]:
    """The driver's, beside the server that its ranks are forked from."""
    return beside.command(task.preload, *task.driver[2:]) if task.preload and "-m" in task.driver[1:2] else task.driver


def _forked(command: Sequence[str], environment: Mapping[str, str], log_path: Path) -> int | None:
    """The driver's pid, where this process has a fork server that can fork it."""
    if "-m" not in command[1:2]:
        return None
    try:
        return forking.fork_detached(command, environment, log_path)
    except forking.Unavailable as error:
        if forking.WARM in os.environ:
            log_path.write_text(f"the driver imports for itself: {error}\n")
        return None


def _started(command: Sequence[str], environment: Mapping[str, str], log_path: Path) -> int:
    """The driver's pid. The shell ends at once, so the driver's parent is init: no zombie stays with the launcher, and a launcher that ends its
    process tree does not reach it."""
    with log_path.open("ab") as log:
        shell = subprocess.run(
            ["/bin/sh", "-c", '"$@" >&2 & echo $!', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,
            check=True,
        )
    return int(shell.stdout)


def look(job: Job) -> JobStatus:
    """Whether the driver still runs; it cannot be told on another host than the driver's."""
    if job.host != socket.gethostname():
        return JobStatus(None)
    return JobStatus(True) if _process(job) else JobStatus(False, ended="the driver process died")


def launched(run_dir: Path) -> Job | None:
    """The driver on this machine that a launch started whose caller was killed before it could note the job; None where there is none."""
    for process in psutil.process_iter(["cmdline", "create_time"]):
        command = process.info["cmdline"] or []
        if str(run_dir) in command and any(word in DRIVERS for word in command) and not command[0].endswith("sh"):
            return Job("local", str(process.pid), socket.gethostname(), process.info["create_time"], mark(process.pid))
    return None


def withdraw(job: Job) -> bool:
    """Nothing waits here: a driver starts at once."""
    return False


def kill(job: Job) -> None:
    """Ask the driver to end its ranks, and kill it when it has not ended in 10 s (its ranks die with it)."""
    if job.host != socket.gethostname():
        raise ValueError(f"the driver runs on host {job.host}, this is {socket.gethostname()}; kill the run there")
    process = _process(job)
    if process is None:
        return
    with suppress(psutil.NoSuchProcess):
        process.terminate()
        deadline = time.monotonic() + KILL_TIMEOUT_S
        while _process(job):
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(0.05)


def survey() -> ClusterSnapshot:
    """This machine: its cores, memory and GPUs, and how busy they are."""
    return _machine.survey()


@contextmanager
def gang(task: Task) -> Iterator[Client]:
    """A dask client with one worker a node. One node's is in this process, with no socket; several are processes on the loopback interface, and other
    users of this machine have no certificate for them."""
    from dask import config
    from distributed import Client, SpecCluster

    from workbench.backends import _dask

    several = task.config.num_nodes > 1
    security = _tls.security(task.run_dir / "dask") if several else None
    settings = {
        **_dask.SETTINGS,
        "distributed.worker.memory.terminate": False,
        "distributed.nanny.pre-spawn-environ": {},  # dask would set one thread for BLAS, and the ranks would inherit it
    }
    everywhere = {"host": "127.0.0.1", "protocol": "tls://", "security": security} if several else {"protocol": "inproc://"}
    node = {
        "cls": _dask.Nanny if several else _dask.Inside,
        "options": {
            **everywhere,
            "dashboard": False,
            "nthreads": 1 + len(task.servers),  # an agent of each gang
            "memory_limit": None,
            "silence_logs": logging.ERROR,
        },
    }
    with (
        config.set(settings),
        SpecCluster(
            scheduler={"cls": _dask.Scheduler, "options": {**everywhere, "dashboard": False}},
            workers=dict.fromkeys(range(task.config.num_nodes), node),
            security=security,
            silence_logs=cast(bool, logging.ERROR),  # a level, whatever its annotation says
        ) as cluster,
        Client(cluster, security=security) as client,
    ):
        yield client


def _process(job: Job) -> psutil.Process | None:
    """The driver's process; None when it has ended, also when its pid went to another process."""
    try:
        process = psutil.Process(int(job.id))
        same = mark(process.pid) == job.mark if job.mark else abs(process.create_time() - job.started) < CLOCK_TOLERANCE_S
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def mark(pid: int) -> str:
    """What no other process of this pid has: when it started, counted from the machine's boot, and which boot that was. Empty where there is none.

    Not the time of day: a clock that is set right, as after a virtual machine stood still, would make it another process.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}:{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    except (FileNotFoundError, ProcessLookupError):
        return ""
