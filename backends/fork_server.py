"""A process that imports once what ranks need, and forks them: a rank that would import for seconds begins at once, and shares that memory.

It has one thread and touches no CUDA, gRPC, tokenizer or torch operation before a fork. Each connection to its UNIX socket owns what it asked for:
when the connection ends, however that comes about, the kernel kills those processes, and the server itself goes with whoever started it.

`serving` starts one, or forks it off a process that has imported the modules already.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn, TypedDict, cast

from workbench.backends import _naming

AT_IMPORT = ("CUDA_VISIBLE", "HF_", "HUGGINGFACE_", "KMP_", "LD_", "PYTHONPATH", "TRANSFORMERS_")
"""Beginnings of variables that are read while modules are imported: a server forks what has the same, and nothing else."""
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONHASHSEED": "0", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
"""For all ranks, unless their environment says otherwise: sets of names have one order on all nodes; threads do not spin while they wait, since ranks,
servers and others share cores; CUDA is looked for without being begun."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""While the modules are imported. A rank takes its own number of threads before its first tensor."""
PR_SET_PDEATHSIG = 1
CHUNK = 1 << 16

_prctl = ctypes.CDLL(None).prctl


class Request(TypedDict):
    """What to fork: the `main` of a module, with its arguments. `log` takes its standard output and error; `detached` outlives the server."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    umask: int
    namespaces: list[str]
    log: str
    detached: bool


class Reply(TypedDict, total=False):
    """First the process's number, then how it ended, as `os.waitpid` says."""

    pid: int
    status: int
    refused: str


class Server:
    """The loop of the one thread. `lifeline` ends when whoever started the server does."""

    def __init__(self, listener: socket.socket, lifeline: int):
        self._listener, self._lifeline = listener, lifeline
        self._selector = selectors.DefaultSelector()
        self._owners: dict[int, socket.socket] = {}
        self._buffers: dict[socket.socket, bytearray] = {}
        self._environment = dict(os.environ)

    def serve(self) -> int:
        """Fork what is asked for, until the lifeline ends."""
        self._wake, wakes = os.pipe()
        for end in (self._wake, wakes):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(
                number, signal.SIG_IGN
            )  # sent to a whole group of processes: the server goes with its owner, ranks have groups of their own
        self._files = [self._wake, wakes]
        for source in (self._listener, self._lifeline, self._wake):
            self._selector.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj == self._wake:
                    os.read(self._wake, CHUNK)
                elif key.fileobj == self._lifeline:
                    self._end()
                    return 0
                else:
                    self._hear(cast(socket.socket, key.fileobj))
            self._reap()

    def _accept(self) -> None:
        owner, _ = self._listener.accept()
        self._buffers[owner] = bytearray()
        self._selector.register(owner, selectors.EVENT_READ)

    def _hear(self, owner: socket.socket) -> None:
        try:
            part = owner.recv(CHUNK)
        except ConnectionResetError:
            part = b""
        if not part:
            self._drop(owner)
            return
        buffer = self._buffers[owner]
        buffer += part
        while (end := buffer.find(b"\n")) >= 0:
            request = cast(Request, json.loads(buffer[:end]))
            del buffer[: end + 1]
            self._say(owner, self._fork(owner, request))

    def _say(self, owner: socket.socket, reply: Reply) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it is dropped when its end is read
            owner.sendall(json.dumps(reply).encode() + b"\n")

    def _drop(self, owner: socket.socket) -> None:
        self._selector.unregister(owner)
        del self._buffers[owner]
        owner.close()
        for pid, its in list(self._owners.items()):
            if its is owner:
                _kill(pid)

    def _end(self) -> None:
        for pid in self._owners:
            _kill(pid)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            owner = self._owners.pop(pid, None)
            if owner in self._buffers:
                self._say(cast(socket.socket, owner), {"pid": pid, "status": status})

    def _fork(self, owner: socket.socket, request: Request) -> Reply:
        """In the server: what to answer. In the child it does not return."""
        if request["namespaces"] != namespaces():
            return {"refused": "the fork server lives in other namespaces (mounts, network, users)"}
        if different := _different(self._environment, request["environment"]):
            return {"refused": f"{', '.join(different)} differ from what the fork server was started with"}
        if edited := changed():
            return {"refused": f"{edited} has changed since it was imported"}
        if (number := threads()) != 1:
            return {"refused": f"the fork server has {number} threads: a module starts some when it is imported"}
        sys.stdout.flush()
        sys.stderr.flush()
        if request["detached"]:
            return {"pid": self._fork_detached(request)}
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != server:
                os._exit(1)
            self._become(request)
        self._owners[pid] = owner
        return {"pid": pid}

    def _fork_detached(self, request: Request) -> int:
        """By way of a process between, so that init is its parent."""
        inner, outer = os.pipe()
        between = os.fork()
        if between == 0:
            os.setsid()
            pid = os.fork()
            if pid == 0:
                os.close(inner)
                os.close(outer)
                self._become(request)
            os.write(outer, str(pid).encode())
            os._exit(0)
        os.close(outer)
        with os.fdopen(inner) as said:
            pid = int(said.read())
        os.waitpid(between, 0)
        return pid

    def _become(self, request: Request) -> NoReturn:
        """In the child: what a new process would be that was started with this command."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for owner in self._buffers:
            owner.close()
        self._listener.close()
        self._selector.close()
        for file in (*self._files, self._lifeline):
            os.close(file)
        leave(lambda: _run(request))


def _run(request: Request) -> int:
    with suppress(PermissionError):  # the leader of a session already
        os.setsid()
    os.umask(0o077)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for file, standard in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(file, standard)
    os.close(log)
    os.close(nothing)
    os.chdir(request["folder"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    module = import_module(request["module"])
    sys.argv = [str(module.__file__), *request["arguments"]]
    _naming.show([sys.executable, "-m", request["module"], *request["arguments"]], request["environment"])
    return module.main()


def leave(run: Callable[[], int]) -> NoReturn:
    """Run it and end this process as Python would, but for taking its memory apart."""
    try:
        gc.enable()
        code = run()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException as error:  # as the interpreter does at its top level
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    try:
        threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]  waits for the threads that are no daemons, as `multiprocessing` does
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code or 0)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with suppress(ProcessLookupError):  # before it has a group of its own
        os.kill(pid, signal.SIGKILL)


def namespaces() -> list[str]:
    """Which of the kernel's namespaces this process lives in."""
    return sorted(str(path.readlink()) for path in Path("/proc/self/ns").iterdir() if not path.name.endswith("_for_children"))


def umask() -> int:
    """This process's; asking for it by `os.umask` would set it for the other threads."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("Umask:")[2].split()[0], 8)


def threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _different(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    names = {name for name in (*ours, *theirs) if name.startswith(AT_IMPORT)}
    return sorted(name for name in names if ours.get(name) != theirs.get(name))


_imported_at = time.time()


def changed() -> str:
    """The first of the project's files that was edited after it was imported; empty where none was."""
    root = str(Path(__file__).parents[1])
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and file.startswith(root):
            with suppress(FileNotFoundError):
                if Path(file).stat().st_mtime > _imported_at:
                    return file
    return ""


def main() -> int:
    listener, lifeline = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    gc.disable()
    for module in sys.argv[3:]:
        import_module(module)
    gc.freeze()
    return Server(listener, lifeline).serve()


if __name__ == "__main__":
    sys.exit(main())
