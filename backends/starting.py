"""The processes of a gang on one node: how they start, and how they end together."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from workbench.backends import fork_server, forking
from workbench.backends.forking import Forked

GRACE_S = 3.0  # between SIGTERM and SIGKILL
POLL_S = 0.02  # short, so that the rank which died first can be told apart from those it took along
PR_SET_PDEATHSIG = 1

_prctl = ctypes.CDLL(None).prctl

Process: TypeAlias = subprocess.Popen[bytes] | Forked


class Starter:
    """Within: starts processes of one command, each with its environment and log: forked where there is a server that can, else anew."""

    def __init__(self, role: str, command: Sequence[str], preload: Sequence[str]):
        self._role, self._command, self._preload = role, command, preload
        self._server: forking.Connection | None = None

    def __enter__(self) -> Starter:
        if self._preload:
            try:
                self._server = forking.Connection(forking.own(self._preload))
            except forking.Unavailable as error:
                self._without(error)
        return self

    def __exit__(self, *_: object) -> None:
        if self._server:
            self._server.close()

    def __call__(self, environment: Mapping[str, str], log_path: Path) -> Process:
        if self._server:
            try:
                return self._server.fork(self._command, environment, log_path)
            except forking.Unavailable as error:
                self._without(error)
        with log_path.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  one system call, resolved before the fork: it takes no lock
            )

    def _without(self, error: forking.Unavailable) -> None:
        print(f"the {self._role} ranks import for themselves: {error}", flush=True)


def run_together(command: Sequence[str], environments: Sequence[Mapping[str, str]], logs: Sequence[Path], preload: Sequence[str]) -> int | None:
    """Run a gang that nobody else supervises, a process for each environment and log, to its end. Returns the number of the first that failed, if one
    did: the others, which would wait for it, are ended."""
    with Starter("gang", command, preload) as start:
        processes = [start({**fork_server.ENVIRONMENT, **os.environ, **own}, log) for own, log in zip(environments, logs, strict=True)]
        try:
            while True:
                codes = [process.poll() for process in processes]
                if any(codes) or None not in codes:
                    return next((number for number, code in enumerate(codes) if code), None)
                time.sleep(POLL_S)
        finally:
            end_all(processes)


def _die_with_parent() -> None:
    """In the child, before exec: the kernel kills it when the agent's thread ends, however that comes about."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_all(processes: Sequence[Process]) -> None:
    """SIGTERM, then SIGKILL to whatever is left of each rank's session."""
    _signal(processes, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    _signal(processes, signal.SIGKILL)
    for process in processes:
        process.wait()


def _signal(processes: Sequence[Process], number: signal.Signals) -> None:
    for process in processes:
        if process.poll() is None or number == signal.SIGKILL:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
