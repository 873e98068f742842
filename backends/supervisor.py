"""Node agents, and the supervisor that starts, watches and restarts the whole gang.

One agent runs in each dask worker, which is one node. It starts the node's ranks and watches them. A collective cannot complete
without one of its ranks, so the first death ends them all, and a restart starts them all: a new attempt number, a new store, and the
ranks continue from their last checkpoint. Every link is fail-stop: ranks die with the agent's process, agents with the driver.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlparse

import psutil

from workbench.backends import _store, fork_server, scratch
from workbench.backends.base import Task
from workbench.backends.starting import POLL_S, Process, Starter, end_all

if TYPE_CHECKING:
    from distributed import Client, Future

NODES_POLL_S = 0.1
LOG_LINES = 20


@dataclass(frozen=True)
class Failure:
    """The first death of a gang. `code` is as in `subprocess`: negative for a signal, None where the whole node was lost."""

    rank: int
    host: str
    code: int | None
    time: float
    log_tail: str = ""

    @property
    def order(self) -> tuple[bool, float]:
        """The first was the cause. What no other rank's death brings about comes before all that it may, whatever the nodes' clocks say."""
        return self.code not in (None, -signal.SIGKILL), self.time

    @property
    def reason(self) -> str:
        if self.code is None:
            return f"rank {self.rank} could not be started" if self.log_tail else f"the node of rank {self.rank} ({self.host}) was lost"
        if self.code >= 0:
            return f"rank {self.rank} exited with code {self.code}"
        name = signal.Signals(-self.code).name if -self.code in {*signal.Signals} else f"signal {-self.code}"
        return f"rank {self.rank} was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def __str__(self) -> str:
        """One line with the reason and the last thing the rank said, then the end of its log."""
        last = self.log_tail.strip().rpartition("\n")[2].removeprefix(f"[rank{self.rank}]: ")
        return self.reason + (f": {last}" if last else "") + (f"\n{self.log_tail}" if self.log_tail else "")


class GangFailed(RuntimeError):
    """No restart is left. The message is the last failure's."""


class GangEnded(Exception):
    """The gang was ended because `watch` asked for it."""


@dataclass(frozen=True)
class Seat:
    """Where one node's ranks sit in the gang, and the store in which they meet. `ranks_on_host` counts those of every node that this host plays."""

    node: int
    attempt: int
    host: str
    ranks_on_host: int
    master_addr: str
    store: str


def supervise_with_servers(client: Client, task: Task, watch: Callable[[int], bool]) -> None:
    """As `supervise`, with the task's servers beside it. Each server is restarted on its own; one that fails for good fails the whole.

    Raises:
        GangFailed, GangEnded, TimeoutError: as `supervise` does.
    """
    over = threading.Event()
    failures: list[Exception] = []

    def serve(server: Task) -> None:
        try:
            supervise(client, server, lambda _: not over.is_set())
            failures.append(GangFailed(f"the {server.role} server ended while it was needed"))
        except GangEnded:
            return
        except (GangFailed, OSError) as error:
            failures.append(type(error)(f"the {server.role} server failed: {error}"))

    threads = [threading.Thread(target=serve, args=(server,), name=server.role) for server in task.servers]
    for thread in threads:
        thread.start()
    try:
        supervise(client, task, lambda attempt: watch(attempt) and not failures)
    except GangEnded:
        if failures:
            raise failures[0] from None
        raise
    finally:
        over.set()
        for thread in threads:
            thread.join()


def supervise(client: Client, task: Task, watch: Callable[[int], bool], poll_s: float = 0.1) -> None:
    """Run the gang until every rank has exited with 0; start it again after a failure, `max_restarts` times.

    `watch(attempt)` is called a few times a second while the gang runs; False ends the gang at once.

    Raises:
        GangFailed: a rank died or a node was lost, and no restart is left.
        GangEnded: `watch` returned False, also while it waits for nodes.
        TimeoutError: a node did not come (back).
    """
    failure: Failure | None = None
    for attempt in range(task.attempt, task.attempt + task.config.max_restarts + 1):
        failure = _run_once(client, task, attempt, watch, poll_s)
        if failure is None:
            return
        print(f"attempt {attempt}: {failure.reason}", flush=True)
    raise GangFailed(str(failure))


def _run_once(client: Client, task: Task, attempt: int, watch: Callable[[int], bool], poll_s: float) -> Failure | None:
    """One attempt of the whole gang; its first failure, or None."""
    seats = _seats(client, task, attempt, watch)
    try:
        agents = {client.submit(node_agent, task, seat, workers=[address], pure=False, retries=0): seat for address, seat in seats.items()}
        wanted, ending = True, False
        while not all(agent.done() for agent in agents):
            wanted = watch(attempt)
            failed = any(agent.done() and _failure(agent, task, seat) for agent, seat in agents.items())
            if not ending and (failed or not wanted):
                ending = True
                client.run(request_end, *_key(task, attempt), on_error="ignore")
            time.sleep(poll_s)
    finally:
        client.run(_store.close_store, _key(task, attempt), on_error="ignore")
    if not wanted:
        raise GangEnded
    failures = [failure for agent, seat in agents.items() if (failure := _failure(agent, task, seat))]
    return min(failures, key=lambda failure: failure.order, default=None)


def _key(task: Task, attempt: int) -> tuple[str, str, int]:
    return str(task.run_dir), task.role, attempt


def _seats(client: Client, task: Task, attempt: int, watch: Callable[[int], bool]) -> dict[str, Seat]:
    """A seat for each dask worker, by its address; rank 0's node comes first. Raises as `_nodes` does."""
    from distributed.scheduler import KilledWorker, NoValidWorkerError

    while True:
        addresses = _nodes(client, task, lambda: watch(attempt))
        hosts = [_host(address) for address in addresses]
        try:
            opened = client.submit(open_store, _key(task, attempt), hosts[0], len(set(hosts)) == 1, workers=addresses[:1], pure=False, retries=0)
            store = opened.result()
            break
        except (KilledWorker, NoValidWorkerError):
            print(f"the {task.role} gang's first node was lost before it began", flush=True)
    return {
        address: Seat(node, attempt, host, hosts.count(host) * task.config.ranks_per_node, hosts[0], store)
        for node, (address, host) in enumerate(zip(addresses, hosts, strict=True))
    }


def _host(address: str) -> str:
    """Of a dask worker's address; one in the driver's own process has no port."""
    url = urlparse(address)
    return "127.0.0.1" if url.scheme == "inproc" else url.hostname or ""


def _nodes(client: Client, task: Task, wanted: Callable[[], bool]) -> list[str]:
    """The addresses of the gang's dask workers, in the order of their names.

    Raises:
        TimeoutError: too few came in time.
        GangEnded: the gang is not `wanted` any more.
    """
    group, num_nodes = task.config.group(task.role), task.config.num_nodes
    deadline = time.monotonic() + task.config.nodes_timeout_s
    while True:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        names = {address: str(worker["name"]) for address, worker in workers.items()}
        ours = sorted((name, address) for address, name in names.items() if not group or name.startswith(f"{group}-"))
        if len(ours) >= num_nodes:
            return [address for _, address in ours[:num_nodes]]
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {len(ours)} of the {num_nodes} nodes of the {task.role} gang came within {task.config.nodes_timeout_s:g} s")
        if not wanted():
            raise GangEnded
        time.sleep(NODES_POLL_S)


def _failure(agent: Future, task: Task, seat: Seat) -> Failure | None:
    """What a finished agent has to tell. An agent that ended by an error was lost with its node, or could not start its ranks."""
    if agent.status == "finished":
        return agent.result()
    error = agent.exception()
    detail = "" if type(error).__name__ == "KilledWorker" else f"{type(error).__name__}: {error}"
    return Failure(seat.node * task.config.ranks_per_node, seat.host, None, time.time(), detail)


_ends: dict[tuple[str, str, int], threading.Event] = {}


def _end_of(run: str, role: str, attempt: int) -> threading.Event:
    return _ends.setdefault((run, role, attempt), threading.Event())


def request_end(run: str, role: str, attempt: int) -> None:
    """Runs in the agent's process: end the ranks of this attempt, also when they have not started yet."""
    _end_of(run, role, attempt).set()


def node_agent(task: Task, seat: Seat) -> Failure | None:
    """Start one node's ranks and watch them until all have ended. Returns the first that failed, None when none did.

    After a failure, at the supervisor's request, or when the driver is lost, the ranks that are left get SIGTERM, and SIGKILL 3 s later.
    """
    from distributed import Status, get_worker

    worker = get_worker()
    end = _end_of(str(task.run_dir), task.role, seat.attempt)
    ranks: dict[int, Process] = {}
    failed: tuple[int, float] | None = None
    with _store.environment(seat.store, worker.security) as store, Starter(task.role, task.command, task.preload) as start:
        try:
            for local_rank in range(task.config.ranks_per_node):
                rank = seat.node * task.config.ranks_per_node + local_rank
                ranks[rank] = start(_environment(task, seat, rank, local_rank, store), _log_path(task, seat, rank))
            while failed is None and not end.is_set() and any(process.poll() is None for process in ranks.values()):
                # A worker that lost the scheduler, which lives in the driver, waits for this to end.
                if worker.status not in (Status.running, Status.paused):
                    end.set()
                failed = _first_dead(ranks)
                end.wait(POLL_S)
            failed = failed or (None if end.is_set() else _first_dead(ranks))
        finally:
            end_all(list(ranks.values()))
            scratch.sweep()  # what a rank that was killed could not remove
    if failed is None:
        return None
    rank, when = failed
    return Failure(rank, socket.gethostname(), ranks[rank].returncode, when, _tail(_log_path(task, seat, rank)))


def open_store(key: tuple[str, str, int], host: str, one_host: bool) -> str:
    """Runs in the first node's agent: see `_store.open_store`."""
    from distributed import get_worker

    return _store.open_store(key, host, one_host, get_worker().security)


def _first_dead(ranks: Mapping[int, Process]) -> tuple[int, float] | None:
    """The rank that failed, with the time. Of several, one that a signal ended: the others' errors are what its death caused."""
    codes = {rank: process.poll() for rank, process in ranks.items()}
    bad = sorted((code, rank) for rank, code in codes.items() if code)
    return (bad[0][1], time.time()) if bad else None


def _environment(task: Task, seat: Seat, rank: int, local_rank: int, store: Mapping[str, str]) -> dict[str, str]:
    """A rank's."""
    threads = str(task.config.threads_per_rank or max(1, len(os.sched_getaffinity(0)) // seat.ranks_on_host))
    interface = _interface(seat.host)
    return {
        **fork_server.ENVIRONMENT,
        **os.environ,
        "GLOO_SOCKET_IFNAME": interface,
        "NCCL_SOCKET_IFNAME": interface,
        **task.env,
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(task.config.world_size),
        "LOCAL_WORLD_SIZE": str(task.config.ranks_per_node),
        "MASTER_ADDR": seat.master_addr,
        **store,
        "WORKBENCH_ATTEMPT": str(seat.attempt),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
    }


def _interface(address: str) -> str:
    """The name of the network interface that has this address, for gloo and NCCL."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return name
    raise OSError(f"no network interface of {socket.gethostname()} has the address {address}")


def _log_path(task: Task, seat: Seat, rank: int) -> Path:
    return task.log_path(f"{task.role}-{rank}", seat.attempt)


def _tail(path: Path) -> str:
    """The last lines of a log."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 200 * LOG_LINES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-LOG_LINES:])
