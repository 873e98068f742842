"""What a backend is: it knows commands, nodes and folders, never models.

A backend is one file, `backends/<name>.py`, with a `Config` (its YAML's schema) and a `launch` function; it is found by its name.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast, dataclass_transform

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from distributed import Client


if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
    from pydantic.fields import PrivateAttr

    @dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field, PrivateAttr))
    class Immutable(ModelMetaclass):
        """Of models that are `frozen` with all their subclasses, which pydantic cannot say to a type checker: a field may be narrowed in a subclass."""
else:
    Immutable = type(BaseModel)


AGAIN = 75
"""The driver's exit code when the run is saved and is to be requeued: it continues in another allocation (EX_TEMPFAIL)."""

WARNED = "WORKBENCH_WARNED"
"""In the driver's environment, where its allocation may end early: a file that is there once the end is near."""

RESTARTS = "WORKBENCH_RESTARTS"
"""In the driver's environment: how often its job was started again."""


PARTS = ("base", "beside", "fork_server", "forking", "scratch", "starting", "supervisor")
"""The files beside the backends that are none."""


class Config(BaseModel, metaclass=Immutable, frozen=True, extra="forbid", validate_default=True):
    """The settings every backend has."""

    name: str = Field(description="Which backend runs the experiment: a file in backends/.")
    num_nodes: int = Field(default=1, ge=1, le=4096, description="Nodes of the gang; all start together or none does.")
    ranks_per_node: int = Field(default=1, ge=1, le=64, description="Processes on each node: one a GPU, or one a CPU socket.")
    threads_per_rank: int = Field(default=0, ge=0, le=1024, description="CPU threads of each rank; 0 divides the node's cores evenly.")
    nodes_timeout_s: float = Field(
        default=120.0, gt=0, le=86400, description="How long a gang waits for a node to come, or to come back, before it gives up."
    )
    max_restarts: int = Field(default=0, ge=0, le=100, description="How often the whole gang is started again from its last checkpoint.")

    @property
    def world_size(self) -> int:
        return self.num_nodes * self.ranks_per_node

    @property
    def requeues(self) -> bool:
        """Whether a run that is saved before its allocation ends is started again in another."""
        return False

    @property
    def chains(self) -> bool:
        """Whether a job can wait in the queue for others (`Task.after`)."""
        return False

    def group(self, role: str) -> str:
        """Which of the backend's nodes a role's gang runs on: those whose dask workers are named `<group>-…`. Empty: any."""
        return ""

    def serving(self, role: str, processes: int, max_restarts: int) -> Config:
        """The same for a server's gang of so many processes, all on one node. Raises ValueError where they cannot be placed."""
        return self.model_copy(update={"num_nodes": 1, "ranks_per_node": processes, "max_restarts": max_restarts})


@dataclass(frozen=True)
class Task:
    """A gang of equal processes: the same command on every rank, started and stopped as one.

    `command` is what each rank runs; `driver` is the command of the detached process that supervises them. `attempt` counts the
    launches of one run, from 1, and numbers the logs. `servers` are gangs that live beside this one: each is restarted on its own, and all
    end when it ends. Modules to `preload` are what a command `(python, "-m", …)` imports: once for all ranks of a node, which are forked from there.
    `after` are ids of the backend's jobs that have to exit with 0 before this one starts, where it `chains`.
    """

    run_dir: Path
    command: Sequence[str]
    driver: Sequence[str]
    config: Config
    attempt: int = 1
    env: Mapping[str, str] = field(default_factory=dict)
    role: str = "actor"
    servers: Sequence[Task] = ()
    preload: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def log_path(self, role: str, attempt: int) -> Path:
        return self.run_dir / "logs" / f"{role}.{attempt}.log"


@dataclass(frozen=True)
class Job:
    """A launched driver. `id` is the backend's own name for it (a pid, a SLURM job id); `started` is in seconds since the epoch.

    `mark` tells it from another one that is given the same id later, where that can be.
    """

    backend: str
    id: str
    host: str
    started: float
    mark: str = ""


@dataclass(frozen=True)
class JobStatus:
    """What a poll of a job reports, at `time`.

    `alive` is whether it runs, or will; None where this host cannot tell. `waiting` says why it has not started, `ended` how it ended, in the
    scheduler's words; `cancelled` whether somebody ended it.
    """

    alive: bool | None
    waiting: str = ""
    ended: str = ""
    cancelled: bool = False
    time: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Finding:
    """What a check before the launch told. An error refuses the launch; `key` is the setting that it is about, where it is about one."""

    name: str
    level: Literal["ok", "warning", "error"]
    message: str
    key: str = ""


@dataclass(frozen=True)
class Device:
    """An accelerator of this machine: memory in MiB, `busy` a share of the last second or so; None where it is not told."""

    name: str
    memory_mib: float
    memory_used_mib: float
    busy: float | None


@dataclass(frozen=True)
class Node:
    """A machine that ranks can be placed on. Memory in MiB; None where nobody tells.

    On a scheduler's nodes `used` is what jobs were given, and `load` what the CPUs do; on this machine both are what they do. `state` is the
    scheduler's word in lower case; a node that is not `usable` takes no job. `cores` are this machine's, each with its busy share.
    """

    name: str
    state: str
    usable: bool
    cpus: int
    cpus_used: float
    load: float | None
    memory_mib: float
    memory_used_mib: float | None
    gpus: int = 0
    gpus_used: float | None = None
    gpu_kind: str = ""
    partitions: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    reason: str = ""
    cores: tuple[float, ...] = ()
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True)
class Partition:
    """A queue of a scheduler. `time_limit` in the scheduler's words."""

    name: str
    up: bool
    default: bool
    time_limit: str


@dataclass(frozen=True)
class Entry:
    """A job as squeue lists it. Times are in SLURM's words; `start` is the expected one while it `waits`."""

    id: str
    state: str
    reason: str
    start: str
    num_nodes: int
    nodes: str
    partition: str
    name: str
    user: str
    elapsed: str
    time_limit: str
    gres: str
    waits: bool


@dataclass(frozen=True)
class ClusterSnapshot:
    """What there is to run on, and who runs there, at `time`. `error` is what could not be found out, and why."""

    backend: str
    title: str
    time: float
    nodes: tuple[Node, ...] = ()
    partitions: tuple[Partition, ...] = ()
    queue: tuple[Entry, ...] = ()
    error: str = ""


class Backend(Protocol):
    """The module of a backend. Its allocation may end before the run does, or start the driver again: see WARNED and RESTARTS."""

    Config: type[Config]

    def check(self, task: Task) -> list[Finding]:
        """What would keep the task from running as it is, found within seconds and without starting anything."""
        ...

    def launch(self, task: Task) -> Job:
        """Start `task.driver` so that it outlives the caller. Raises OSError, in the scheduler's own words, when it cannot be started."""
        ...

    def look(self, job: Job) -> JobStatus:
        """Whether the driver still runs. Cheap enough to be asked for every run of a list."""
        ...

    def withdraw(self, job: Job) -> bool:
        """Take a job that has not started out of the queue. Returns whether it was; one that runs is left alone."""
        ...

    def kill(self, job: Job) -> None:
        """End the driver and its ranks at once. `workbench stop` asks politely first. Raises ValueError where this host cannot."""
        ...

    def gang(self, task: Task) -> AbstractContextManager[Client]:
        """Inside the driver: a context manager that yields the dask client with one worker a node."""
        ...


def find(name: str) -> Backend:
    """The backend module called `name`.

    Raises:
        ValueError: no such backend; the message lists those there are.
    """
    if name not in names():
        raise ValueError(f"unknown backend {name!r}; there are: {', '.join(names())}")
    return cast(Backend, import_module(f"workbench.backends.{name}"))


def names() -> list[str]:
    """The backends there are: the files of this folder that define one."""
    return sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py") if path.stem not in PARTS)
