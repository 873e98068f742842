"""The other side of a fork server (`fork_server`): how a process asks for forks, and gets a server of its own."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import cast

from workbench.backends import _naming, fork_server, scratch
from workbench.backends.fork_server import CHUNK, ENVIRONMENT, ONE_THREAD, Reply, Request, Server

SOCKET = "WORKBENCH_FORK_SERVER"
"""In the environment of a node's agent: the path of the server's socket."""
WARM = "WORKBENCH_WARM"
"""In the environment of a process that launches runs: the socket of a server that forks their drivers."""


class Unavailable(OSError):
    """The server cannot fork this; a process can still be started anew."""


class Forked:
    """A forked process, with what its owner needs of `subprocess.Popen`."""

    def __init__(self, connection: Connection, pid: int):
        self._connection, self.pid = connection, pid

    @property
    def returncode(self) -> int | None:
        """Negative for a signal; None while it runs."""
        return self._connection.codes.get(self.pid)

    def poll(self) -> int | None:
        self._connection.receive(0)
        return self.returncode

    def wait(self) -> int:
        while self.returncode is None:
            self._connection.receive(None)
        return self.returncode


class Connection:
    """One owner's line to a server; for one thread. Processes that it asked for end with it.

    Raises:
        Unavailable: no server answers there.
    """

    def __init__(self, path: str):
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(path)
        except OSError as error:
            raise Unavailable(f"no fork server at {path}: {error}") from None
        self._buffer = bytearray()
        self._replies: list[Reply] = []
        self._pids: set[int] = set()
        self.codes: dict[int, int] = {}
        self._lost = False

    def fork(self, command: Sequence[str], environment: Mapping[str, str], log: Path, detached: bool = False) -> Forked:
        """Start `command`, which is `(python, "-m", module, *arguments)`. Returns when it runs; waits while the server still imports.

        Raises:
            Unavailable: the server ended, or refuses; it says why.
        """
        request: Request = {
            "module": command[2],
            "arguments": list(command[3:]),
            "environment": dict(environment),
            "folder": str(Path.cwd()),
            "umask": fork_server.umask(),
            "namespaces": fork_server.namespaces(),
            "log": str(log),
            "detached": detached,
        }
        with suppress(BrokenPipeError, ConnectionResetError):
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        while not self._replies and not self._lost:
            self.receive(None)
        if not self._replies:
            raise Unavailable("the fork server ended")
        reply = self._replies.pop()
        if "refused" in reply:
            raise Unavailable(reply["refused"])
        pid = reply.get("pid", 0)
        if not detached:
            self._pids.add(pid)
        return Forked(self, pid)

    def receive(self, timeout_s: float | None) -> None:
        """Take in what the server says, waiting so long for it. A server that is gone took its processes along."""
        if self._lost:
            return
        self._socket.settimeout(timeout_s)
        try:
            part = self._socket.recv(CHUNK)
        except (BlockingIOError, TimeoutError):
            return
        except ConnectionResetError:
            part = b""
        if not part:
            self._lost = True
            self.codes |= dict.fromkeys(self._pids - self.codes.keys(), -signal.SIGKILL)
        self._buffer += part
        *lines, rest = bytes(self._buffer).split(b"\n")
        self._buffer[:] = rest
        for line in lines:
            reply = cast(Reply, json.loads(line))
            if "status" in reply and "pid" in reply:
                self.codes[reply["pid"]] = os.waitstatus_to_exitcode(reply["status"])
            else:
                self._replies.append(reply)

    def close(self) -> None:
        self._socket.close()


@contextmanager
def serving(modules: Sequence[str]) -> Iterator[str]:
    """Within: a server of this process's own. Yields its socket's path. What it forks has this process's environment at import.

    Call it while this process has one thread. Where the modules are loaded already, as in a process that was itself forked, none is imported again.
    """
    with scratch.folder() as folder:
        path = folder / "fork"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(64)
        inner, outer = os.pipe()
        if all(module in sys.modules for module in modules) and fork_server.threads() == 1:
            pid = os.fork()
            if pid == 0:
                os.close(outer)
                _naming.show([sys.executable, "-m", fork_server.__name__, *modules], os.environ)
                fork_server.leave(lambda: Server(listener, inner).serve())
        else:
            os.set_inheritable(listener.fileno(), True)
            command = [sys.executable, "-m", fork_server.__name__, str(listener.fileno()), str(inner), *modules]
            environment = {**ENVIRONMENT, **os.environ, **ONE_THREAD}
            # In a session of its own: Ctrl-C in a terminal is the owner's to hear.
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, pass_fds=(listener.fileno(), inner), start_new_session=True)
            pid = server.pid
        listener.close()
        os.close(inner)
        try:
            yield str(path)
        finally:
            os.close(outer)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # it may be importing still
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


_servers = ExitStack()
_own: list[str] = []
_lock = threading.Lock()


def own(modules: Sequence[str]) -> str:
    """The socket of the server that forks for this process: that of the driver or of the launching process which started it, or one of its own, started
    at the first call and ended with this process. What was forked detached keeps running."""
    if SOCKET in os.environ:
        return os.environ[SOCKET]
    with _lock:
        if WARM in os.environ and Path(os.environ[WARM]).exists():
            return os.environ[WARM]
        if not _own:
            _own.append(_servers.enter_context(serving(modules)))
            atexit.register(_servers.close)
            os.environ[WARM] = _own[0]
        return _own[0]


def fork_detached(command: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
    """Fork a process that outlives this one and its server. Returns its pid.

    Raises:
        Unavailable: neither this process nor the one that started it has a server (`own`), or it cannot fork this.
    """
    if WARM not in os.environ:
        raise Unavailable("no fork server was started")
    connection = Connection(os.environ[WARM])
    try:
        return connection.fork(command, environment, log, detached=True).pid
    finally:
        connection.close()
