"""PyTriton in front of a process's main thread, where the engine's collectives must run: requests queue, and are answered one by one."""

from __future__ import annotations

import hmac
import os
import queue
import secrets
import signal
import socket
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from workbench.models.endpoint import SECONDS, Arrays, BadRequest, Endpoint, Field, seal
from workbench.serve import discovery
from workbench.serve.health import Health
from workbench.serve.waiting import Waiting

POLL_S = 0.2
READY_S = 60.0
REFUSED, DENIED, END = "\x02refused\x02", "\x02denied\x02", "\x03"
"""They frame a refusal's message inside whatever the libraries wrap around it, tracebacks included."""


@dataclass(frozen=True)
class _Asked:
    """A request in the queue. `since` is of the monotonic clock."""

    endpoint: Endpoint
    arrays: Arrays
    answer: Future[Arrays]
    since: float


class Server:
    """The endpoints of one role of a run. `run` answers until told to stop.

    `linger_s` is how long a request waits before it has another model brought to the accelerator; `health` is told what is done.
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
        self._token = secrets.token_urlsafe(32)
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
        with _sigterm() as terminated, self._triton() as alive:
            self._health.start()
            try:
                self._answer(lambda: terminated.is_set() or stop(), alive)
            finally:
                discovery.withdraw(self._run_dir, self._role)
                self._health.close()
                self._close()

    @contextmanager
    def _triton(self) -> Iterator[Callable[[], bool]]:
        """Triton with every endpoint, announced once it is ready; yields whether it is alive."""
        # Triton's python stub loads the system's libpython unless this one's folder comes first.
        os.environ["LD_LIBRARY_PATH"] = ":".join(filter(None, [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]))
        from pytriton.model_config import ModelConfig
        from pytriton.triton import DEFAULT_PROTECTED_ENDPOINTS, Triton, TritonConfig, TritonSecurityConfig

        port = _free_port(self._host)
        url = f"http://{self._host}:{port}"
        config = cast(Callable[..., Any], TritonConfig)(  # its fields are hidden by its decorator
            http_address=self._host,
            http_port=port,
            http_header_forward_pattern=discovery.TOKEN_HEADER,
            allow_grpc=False,
            allow_metrics=False,
            exit_timeout_secs=5,
        )
        # Triton stands behind a gate of its own; `model-config` stays open for PyTriton's own start.
        restricted = ["inference", *DEFAULT_PROTECTED_ENDPOINTS]
        security = TritonSecurityConfig(access_token=discovery.gate(self._token), restricted_endpoints=restricted)
        with Triton(config=config, security_config=security) as triton:
            for endpoint in self._endpoints:
                triton.bind(
                    model_name=endpoint.name,
                    infer_func=self._function(endpoint),
                    inputs=[*map(_tensor, endpoint.inputs), _tensor(_SEAL, optional=True)],
                    outputs=[*map(_tensor, endpoint.outputs), _tensor(_SECONDS), _tensor(_SEAL)],
                    config=ModelConfig(batching=False),
                    strict=True,
                )
            triton.run()
            deadline = time.monotonic() + READY_S
            while not discovery.ready(url):
                if not triton.is_alive() or time.monotonic() > deadline:
                    raise RuntimeError(f"Triton of the {self._role} server at {url} did not become ready")
                time.sleep(POLL_S)
            discovery.publish(self._run_dir, self._role, url, self._token)
            yield triton.is_alive

    def _answer(self, stop: Callable[[], bool], alive: Callable[[], bool]) -> None:
        while not stop():
            if not alive():
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
        self._health.done(name, time.monotonic() - began, began - asked.since, refused, len(self._waiting))

    def _close(self) -> None:
        """Nobody waits for an answer that does not come: who asks again reaches the next server."""
        with self._lock:
            self._closed = True
            for asked in self._waiting.drain():
                asked.answer.set_exception(RuntimeError(f"the {self._role} server is ending"))

    def _function(self, endpoint: Endpoint) -> Callable[[Any], Any]:
        """What PyTriton calls in a thread of its own: the work is done in the main thread, and waited for here."""
        from pytriton.exceptions import PyTritonInvalidOperationError

        def infer(requests: Any) -> Any:
            answers = []
            for request in requests:
                if not hmac.compare_digest(str((request.parameters or {}).get(discovery.TOKEN_HEADER, "")), self._token):
                    raise PyTritonInvalidOperationError(f"{DENIED}{END}")
                arrays = {name: np.asarray(request.data[name]) for name in request.data}
                sealed = arrays.pop("seal", None)
                if sealed is not None and not np.array_equal(sealed, seal(arrays)):
                    raise RuntimeError(f"a request to {endpoint.name} did not arrive as it was sent")
                try:
                    _complete(endpoint, arrays)
                    answer = self._ask(endpoint, arrays).result()
                except BadRequest as error:
                    raise PyTritonInvalidOperationError(f"{REFUSED}{error}{END}") from None
                answers.append({**answer, "seal": seal(answer, b"" if sealed is None else sealed.tobytes())})
            return answers

        return infer

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


_SEAL, _SECONDS = Field("seal", np.uint8, 1), Field(SECONDS, np.float64, 1)


def _tensor(field: Field, optional: bool = False) -> Any:
    from pytriton.model_config import Tensor

    return Tensor(name=field.name, dtype=field.dtype, shape=(-1,) * field.ndim, optional=optional)


def _complete(endpoint: Endpoint, arrays: Arrays) -> None:
    """With an optional input Triton only counts the others."""
    missing = [field.name for field in endpoint.inputs if field.name not in arrays]
    if missing:
        raise BadRequest(f"{endpoint.name} wants {', '.join(field.name for field in endpoint.inputs)}; missing: {', '.join(missing)}")


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
