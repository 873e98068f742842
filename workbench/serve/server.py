"""PyTriton in front of a process's main thread, where the engine's collectives must run: requests queue, and are answered one by one."""

from __future__ import annotations

import ipaddress
import queue
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from workbench.backends import _tls, scratch
from workbench.models.endpoint import SECONDS, Arrays, BadRequest, Endpoint
from workbench.serve import addresses, discovery, sealed
from workbench.serve.gate import gate
from workbench.serve.health import Health
from workbench.serve.triton import Triton
from workbench.serve.waiting import Waiting

POLL_S = 0.2
REFUSED = "refused"
"""In place of an answer's arrays: why there are none."""
DENIED = "not sealed with the key of this server"


@dataclass(frozen=True)
class _Asked:
    """A request in the queue. `since` is of the monotonic clock."""

    endpoint: Endpoint
    arrays: Arrays
    answer: Future[Arrays]
    since: float


class Server:
    """The endpoints of one role of a run. `run` answers until told to stop.

    `linger_s` is how long a request waits before it has another model brought to the accelerator; `health` is called with what is done.
    """

    def __init__(
        self,
        run_dir: Path,
        role: str,
        endpoints: Sequence[Endpoint],
        host: str = "127.0.0.1",
        max_request_bytes: int = 256 << 20,
        linger_s: float = 0.0,
        health: Health | None = None,
    ):
        self._run_dir, self._role, self._endpoints, self._host = run_dir, role, endpoints, host
        self._max_request_bytes = max_request_bytes
        self._key = sealed.new_key()
        self._waiting: Waiting[_Asked] = Waiting(linger_s)
        self._health = health or Health(run_dir, role)
        self._lock, self._closed = threading.Lock(), False

    def run(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Answer requests until SIGTERM, or until `stop`, which is asked a few times a second. A call under way is answered first.

        Raises:
            RuntimeError: Triton itself died.
            Exception: whatever an endpoint raised but BadRequest; a supervisor starts the server again.
        """
        discovery.withdraw(self._run_dir, self._role)
        with _sigterm() as terminated, self._triton() as triton:
            self._health.start()
            try:
                self._answer(lambda: terminated.is_set() or stop(), triton)
            finally:
                discovery.withdraw(self._run_dir, self._role)
                self._health.close()
                self._close()

    @contextmanager
    def _triton(self) -> Iterator[Triton]:
        """Triton with every endpoint, announced once it is ready."""
        models = {endpoint.name: partial(self._respond, endpoint) for endpoint in self._endpoints}
        with scratch.folder() as folder, Triton(folder, models) as triton, self._reachable(triton) as url:
            self._serving = triton
            discovery.publish(self._run_dir, self._role, url, self._key)
            yield triton

    @contextmanager
    def _reachable(self, triton: Triton) -> Iterator[str]:
        """The address that clients get: Triton's own UNIX socket on one machine, and a gate of mutual TLS where they come from others."""
        if ipaddress.ip_address(socket.gethostbyname(self._host)).is_loopback:
            yield triton.address
            return
        context = _tls.context(discovery.certificate(self._run_dir, self._role), ssl.Purpose.CLIENT_AUTH)
        with gate(self._host, triton.socket, context) as port:
            yield addresses.tls(self._host, port)

    def _answer(self, stop: Callable[[], bool], triton: Triton) -> None:
        while not stop():
            if not triton.is_alive():
                raise RuntimeError(f"tritonserver of the {self._role} server died")
            try:
                asked = self._waiting.get(POLL_S)
            except queue.Empty:
                continue
            self._answer_one(asked)

    def _answer_one(self, asked: _Asked) -> None:
        name, began = asked.endpoint.name, time.monotonic()
        self._health.doing(name)
        refused = False
        try:
            answer = asked.endpoint.answer(asked.arrays)
            seconds = np.array([began - asked.since, time.monotonic() - began])
            asked.answer.set_result({**answer, SECONDS: seconds})
        except BadRequest as error:
            refused = True
            asked.answer.set_exception(error)
        except BaseException:
            asked.answer.set_exception(RuntimeError(f"the {self._role} server failed in {name}"))
            raise
        self._serving.keep_account()
        self._health.done(name, time.monotonic() - began, began - asked.since, refused, len(self._waiting))

    def _close(self) -> None:
        """Nobody waits for an answer that does not come: who asks again reaches the next server."""
        with self._lock:
            self._closed = True
            for asked in self._waiting.drain():
                asked.answer.set_exception(RuntimeError(f"the {self._role} server is ending"))

    def _respond(self, endpoint: Endpoint, data: np.ndarray) -> np.ndarray:
        """What a thread of PyTriton's does with a request: the work is done in the main thread, and waited for here.

        Raises PyTriton's error where the request was not sealed with this server's key.
        """
        from pytriton.exceptions import PyTritonInvalidOperationError

        box = sealed.Box(data)
        try:
            arrays = sealed.unseal(self._key, endpoint.name, box)
        except sealed.NotSealed:
            raise PyTritonInvalidOperationError(DENIED) from None
        try:
            endpoint.check(arrays)
            answer = self._ask(endpoint, arrays).result()
        except BadRequest as error:
            answer = {REFUSED: np.array([str(error).encode()], object)}
        return sealed.close(self._key, endpoint.name, answer, box.nonce).data

    def _ask(self, endpoint: Endpoint, arrays: Arrays) -> Future[Arrays]:
        future: Future[Arrays] = Future()
        size = sum(array.nbytes for array in arrays.values())
        if size > self._max_request_bytes:
            raise BadRequest(f"the request has {size:,} bytes, at most {self._max_request_bytes:,} are taken")
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the {self._role} server is ending")
            self._waiting.put(_Asked(endpoint, arrays, future, time.monotonic()), endpoint.group)
        return future


@contextmanager
def _sigterm() -> Iterator[threading.Event]:
    """Set on SIGTERM, unless the process handles it in its own way."""
    terminated = threading.Event()
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        signal.signal(signal.SIGTERM, lambda *_: terminated.set())
    try:
        yield terminated
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
