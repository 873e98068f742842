"""How each server of a run is: what it says of itself, `health/<role>.json`, and whether its health endpoint answers. Loads no torch.

{"role", "host", "pid", "processes", "attempt", "started", "updated",   times in seconds since the epoch
 "doing", "since",             the endpoint that computes, and since when; "" where none does
 "waiting",                    requests in the queue
 "endpoints": {name: {"calls", "refused", "computed_s", "waited_s"}},
 "here", "swaps", "swapped_s", "host_bytes"}                           where two models share the accelerator
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from workbench.rundir import opening
from workbench.rundir.files import now_on, read_json, write_atomic
from workbench.rundir.opening import Unreadable
from workbench.serve import discovery

WRITE_S = 1.0
SILENT_S = 10.0
PROBE_S = 0.5


class Health:
    """A server's own account of itself, written once a second by a thread of its own: also while it computes for long."""

    def __init__(self, run_dir: Path, role: str, processes: int = 1, more: Callable[[], dict[str, object]] = dict):
        self._path, self._more = run_dir / "health" / f"{role}.json", more
        self._said: dict[str, Any] = {"role": role, "host": socket.gethostname(), "pid": os.getpid(), "processes": processes, "endpoints": {}}
        self._said |= {"attempt": int(os.environ.get("WORKBENCH_ATTEMPT", "1")), "started": time.time(), "waiting": 0}
        self._doing, self._since = "", time.time()
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._write, name="health", daemon=True)

    def start(self) -> None:
        opening.make_folder(self._path.parent)
        self._thread.start()

    def doing(self, endpoint: str) -> None:
        self._doing, self._since = endpoint, time.time()

    def done(self, endpoint: str, computed_s: float, waited_s: float, refused: bool, waiting: int) -> None:
        with self._lock:
            counts = self._said["endpoints"].setdefault(endpoint, {"calls": 0, "refused": 0, "computed_s": 0.0, "waited_s": 0.0})
            counts["calls"] += 1
            counts["refused"] += refused
            counts["computed_s"] += computed_s
            counts["waited_s"] += waited_s
            self._said["waiting"] = waiting
        self._doing, self._since = "", time.time()

    def close(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _write(self) -> None:
        """A full disk ends neither the server nor, once there is room again, this."""
        warned = False
        while True:
            ended = self._ended.wait(WRITE_S)
            with self._lock:
                text = json.dumps({**self._said, "doing": self._doing, "since": self._since, "updated": time.time(), **self._more()})
            try:
                write_atomic(self._path, text)
            except OSError as error:
                if not warned:
                    print(f"warning: the server's account of itself cannot be written ({error}); it continues without", file=sys.stderr, flush=True)
                warned = True
            if ended:
                return


@dataclass(frozen=True)
class Report:
    """A server as it is reported to a user: `state` is ready, busy, starting, silent or ended."""

    role: str
    state: str
    detail: str

    def __str__(self) -> str:
        return f"{self.state}; {self.detail}" if self.detail else self.state


def reports(run_dir: Path, roles: Sequence[str], ended: bool) -> list[Report]:
    """Of each server of a run, in their order. Asks the health endpoint where the server is on this host."""
    return [_report(run_dir, role, ended) for role in roles]


def _report(run_dir: Path, role: str, ended: bool) -> Report:
    try:
        said = read(run_dir / "health" / f"{role}.json")
    except FileNotFoundError:
        return Report(role, "ended" if ended else "starting", "")
    except Unreadable as error:
        return Report(role, "unreadable", str(error))
    calls = ", ".join(f"{name} {counts['calls']}" for name, counts in said["endpoints"].items())
    computed = sum(counts["computed_s"] for counts in said["endpoints"].values())
    parts = [f"{calls} in {computed:.1f} s" if calls else "no request yet"]
    if refused := sum(counts["refused"] for counts in said["endpoints"].values()):
        parts.append(f"{refused} refused")
    if said.get("swaps") is not None:
        parts.append(f"{said.get('here')} on the accelerator, {said['swaps']} swaps in {said.get('swapped_s', 0.0):.1f} s")
    parts.append(f"{said['processes']} process{'es' * (said['processes'] > 1)} on {said['host']}")
    if said["attempt"] > 1:
        parts.append(f"attempt {said['attempt']}")
    return Report(role, "ended" if ended else _state(run_dir, role, said), "; ".join(parts))


class _Endpoint(BaseModel):
    """What a server says of one of its endpoints."""

    model_config = ConfigDict(strict=True)
    calls: int
    refused: int
    computed_s: float


class _Said(BaseModel):
    """Of a server's account what its readers need."""

    model_config = ConfigDict(strict=True)
    host: str
    processes: int
    attempt: int
    doing: str
    endpoints: dict[str, _Endpoint]
    here: str | None = None
    swaps: int | None = None
    swapped_s: float = 0.0


def read(path: Path) -> dict[str, Any]:
    """A server's account of itself. Raises FileNotFoundError and Unreadable."""
    said = read_json(path)
    try:
        _Said.model_validate(said)
    except ValidationError as error:
        raise Unreadable(path, f"no account of a server: {' '.join(str(error).split())[:200]}") from None
    return said


def _state(run_dir: Path, role: str, said: dict[str, object]) -> str:
    path = run_dir / "health" / f"{role}.json"
    silent = now_on(path.parent) - opening.stat(path).st_mtime  # not by what it says: clocks of two hosts may differ
    if silent > SILENT_S:
        return f"silent for {silent:.0f} s"
    if said["host"] == socket.gethostname() and not opening.why_read_only(run_dir):  # no address that another user wrote is asked
        try:
            address, _ = discovery.find(run_dir, role)
        except FileNotFoundError:
            return "starting"
        except Unreadable as error:
            return f"not found: {error}"
        if not discovery.ready(run_dir, role, address, PROBE_S):
            return "not ready"
    return f"busy with {said['doing']}" if said["doing"] else "ready"
