"""What there is to run on and what runs there: nodes, partitions, the queue, and each live run's processes with what they use."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import psutil

from workbench.backends import local, slurm
from workbench.backends.base import ClusterSnapshot
from workbench.rundir import beats, opening
from workbench.rundir.beats import Beat
from workbench.rundir.files import now_on
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import RunDir, State, Status
from workbench.settings.stored import spec_tree, work

SILENT_BEATS = 5
FORGOTTEN_S = 60.0
FIRST_LOOK_S = 0.1

_known: dict[tuple[int, float], psutil.Process] = {}  # psutil tells a process's busy share since it was last asked, so it is asked again
_known_lock = threading.Lock()
_beaten: dict[Path, tuple[float, float]] = {}  # a beat's time by its file, and by this process's monotonic clock
MOST_BEATS = 1 << 16


class Run(Protocol):
    """A run, wherever it executes."""

    @property
    def dir(self) -> RunDir: ...

    @property
    def id(self) -> str: ...

    @property
    def status(self) -> Status: ...


@dataclass(frozen=True)
class Use:
    """What one process of a run uses: `cpus` busy CPUs, memory in MiB. `rank` and what follows are a rank's own words; None for other processes.

    `age_s` is how old the rank's words are, `silent` whether it should have said something since.
    """

    role: str
    rank: int | None
    host: str
    pid: int
    cpus: float
    memory_mib: float
    gpu_memory_mib: float | None = None
    gpu_busy: float | None = None
    step: int | None = None
    phase: str = ""
    age_s: float = 0.0
    silent: bool = False


@dataclass(frozen=True)
class Allocation:
    """A live run, where it runs, and its processes: ranks first."""

    run_id: str
    name: str
    work: str
    state: State
    message: str
    backend: str
    job_id: str
    started: float
    step: int
    total_steps: int
    uses: tuple[Use, ...] = ()

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(use.host for use in self.uses))

    @property
    def ranks(self) -> tuple[Use, ...]:
        return tuple(use for use in self.uses if use.rank is not None)


def _user() -> str:
    """In a container a user may be a number without a name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


@dataclass(frozen=True)
class Cluster:
    """All of it at one time. `user` is who looks."""

    survey: ClusterSnapshot
    allocations: tuple[Allocation, ...] = ()
    user: str = field(default_factory=_user)


Where = Literal["slurm", "local"]


def places() -> list[Where]:
    """What can be looked at from here: SLURM, where its commands are, and this machine; what answers comes first."""
    if not (shutil.which("scontrol") and shutil.which("squeue")):
        return ["local"]
    return ["slurm", "local"] if slurm.survey().nodes else ["local", "slurm"]


def look(runs: Iterable[Run], where: Where) -> Cluster:
    """The place and the live runs; on this machine only those that run on it."""
    survey = slurm.survey() if where == "slurm" else local.survey()
    allocations = [allocation for run in runs if (allocation := _allocation(run))]
    here = [each for each in allocations if where == "slurm" or (each.backend == "local" and each.hosts in ((), (socket.gethostname(),)))]
    return Cluster(survey, tuple(here))


def _allocation(run: Run) -> Allocation | None:
    """A live run of this user's; None for another's, for one that has ended, or whose status cannot be read: what it does is not known here."""
    try:
        if run.dir.read_only or run.dir.status.state.ended or (status := run.status).state.ended:
            return None
    except Unreadable:
        return None
    job, spec = status.job or {}, spec_tree(run.dir)
    ranks = _ranks(run.dir.path / "beats", beats.read(run.dir), status.attempt)
    others = _others(int(job["id"]), ranks) if job.get("backend") == "local" and job.get("host") == socket.gethostname() else []
    return Allocation(
        run_id=run.id,
        name=str(spec.get("name", run.id)),
        work=work(spec),
        state=status.state,
        message=status.message,
        backend=job.get("backend") or spec.get("backend", {}).get("name", "?"),
        job_id=job.get("id", ""),
        started=job.get("started") or status.created,
        step=status.step,
        total_steps=status.total_steps,
        uses=(*ranks, *others),
    )


def _ranks(folder: Path, beats: Sequence[Beat], attempt: int) -> list[Use]:
    """The ranks by role and number. Those of an attempt before are passed over once they are quiet; servers restart by themselves."""
    uses, now = [], now_on(folder)
    for beat in beats:
        with contextlib.suppress(FileNotFoundError, Unreadable):
            age_s = _age_s(folder / f"{beat.role}-{beat.rank}.json", now)
            if beat.ended or (age_s > FORGOTTEN_S and beat.attempt < attempt):
                continue
            uses.append(
                Use(
                    role=beat.role,
                    rank=beat.rank,
                    host=beat.host,
                    pid=beat.pid,
                    cpus=beat.cpus,
                    memory_mib=beat.memory_mib,
                    gpu_memory_mib=beat.gpu_memory_mib,
                    gpu_busy=beat.gpu_busy,
                    step=beat.step,
                    phase=beat.collective or beat.phase,
                    age_s=age_s,
                    silent=age_s > SILENT_BEATS * beat.interval_s,
                )
            )
    return sorted(uses, key=lambda use: (use.role != "actor", use.role, use.rank))


def _age_s(path: Path, now: float) -> float:
    """How old a beat is. At the first look by its file system's clock; then by this process's own: a beat that is another one is new.

    Some file systems take the time of the host that writes, and the clocks of two hosts may differ.
    """
    stamp, here = opening.stat(path).st_mtime, time.monotonic()
    known = _beaten.get(path)
    if known is None or known[0] != stamp:
        if len(_beaten) > MOST_BEATS:
            _beaten.clear()
        known = _beaten[path] = stamp, here - (0.0 if known else max(0.0, now - stamp))
    return here - known[1]


def _others(driver: int, ranks: Sequence[Use]) -> list[Use]:
    """The driver of a run on this machine, and what it started beside the ranks: dask's workers, inference servers."""
    known = {use.pid for use in ranks}
    uses = []
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(driver)
        processes = (root, *root.children(recursive=True))
        _meet(processes)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if process.pid not in known:
                    role = "driver" if process.pid == driver else _role(process)
                    cpus, memory_mib = _measure(process)
                    uses.append(Use(role, None, socket.gethostname(), process.pid, cpus, memory_mib))
    return uses


def _role(process: psutil.Process) -> str:
    """A process by what it runs: the module of a Python, else the program's name."""
    command = process.cmdline()
    for name in ("spawn_main", "resource_tracker", "fork_server"):
        if name in " ".join(command):
            return {"spawn_main": "dask worker"}.get(name, name.replace("_", " "))
    return command[command.index("-m") + 1] if "-m" in command[:-1] else process.name()


def _meet(processes: Sequence[psutil.Process]) -> None:
    """A process's use is counted since it was asked last: those that were never asked are, and given a moment."""
    with _known_lock:
        if len(_known) > 4096:
            _known.clear()
        before = len(_known)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if (key := (process.pid, process.create_time())) not in _known:
                    process.cpu_percent(interval=None)
                    _known[key] = process
        if len(_known) > before:
            time.sleep(FIRST_LOOK_S)


def _measure(process: psutil.Process) -> tuple[float, float]:
    with _known_lock:
        asked = _known[process.pid, process.create_time()]
        return asked.cpu_percent(interval=None) / 100, asked.memory_info().rss / 2**20
