"""PyTriton in front of a process's main thread, where the engine's collectives must run: requests queue, and are answered one by one."""

from __future__ import annotations

import os
import queue
import socket
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import psutil

from workbench.serve import discovery
from workbench.serve.endpoint import Arrays, BadRequest, Endpoint, Field

POLL_S = 0.2
MAX_REQUEST_BYTES = 256 << 20


class Server:
    """The endpoints of one role of a run. `run` answers until told to stop."""

    def __init__(self, run: Path, role: str, endpoints: Sequence[Endpoint], host: str = "127.0.0.1", max_request_bytes: int = MAX_REQUEST_BYTES):
        self._run, self._role, self._endpoints, self._host = run, role, endpoints, host
        self._limit = max_request_bytes
        self._queue: queue.Queue[tuple[Endpoint, Arrays, Future]] = queue.Queue()

    def run(self, stop: Callable[[], bool]) -> None:
        """Answer requests, and ask `stop` a few times a second.

        Raises:
            RuntimeError: Triton itself died.
            Exception: whatever an endpoint raised but BadRequest; a supervisor starts the server again.
        """
        # Triton's python stub loads the system's libpython unless this one's folder comes first.
        os.environ["LD_LIBRARY_PATH"] = ":".join(filter(None, [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]))
        from pytriton.model_config import ModelConfig
        from pytriton.triton import Triton, TritonConfig, TritonSecurityConfig

        http, grpc, metrics = _free_ports(self._host, 3)
        ports = {"http_port": http, "grpc_port": grpc, "metrics_port": metrics}
        config = TritonConfig(http_address=self._host, grpc_address=self._host, metrics_address=self._host, exit_timeout_secs=5, **ports)
        token = discovery.new_token(self._run, self._role)
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        with Triton(config=config, security_config=TritonSecurityConfig(access_token=token, restricted_endpoints=_restricted())) as triton:
            for endpoint in self._endpoints:
                triton.bind(
                    model_name=endpoint.name,
                    infer_func=self._function(endpoint),
                    inputs=[_tensor(field) for field in endpoint.inputs],
                    outputs=[_tensor(field) for field in endpoint.outputs],
                    config=ModelConfig(batching=False),
                    strict=True,
                )
            triton.run()
            children = [child for child in psutil.Process().children(recursive=True) if child.pid not in before and child.name() == "tritonserver"]
            discovery.publish(self._run, self._role, f"http://{self._host}:{http}")
            try:
                self._answer(stop, children)
            finally:
                discovery.withdraw(self._run, self._role)

    def _answer(self, stop: Callable[[], bool], children: Sequence[psutil.Process]) -> None:
        while not stop():
            if not all(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
                raise RuntimeError(f"tritonserver of the {self._role} server died")
            try:
                endpoint, arrays, future = self._queue.get(timeout=POLL_S)
            except queue.Empty:
                continue
            try:
                future.set_result(endpoint.call(arrays))
            except BadRequest as error:
                future.set_exception(error)

    def _function(self, endpoint: Endpoint) -> Callable[[Any], Any]:
        from pytriton.exceptions import PyTritonInvalidOperationError

        def infer(requests: Any) -> Any:
            answers = []
            for request in requests:
                arrays = {name: np.asarray(request.data[name]) for name in request.data}
                size = sum(array.nbytes for array in arrays.values())
                if size > self._limit:
                    raise PyTritonInvalidOperationError(f"the request has {size:,} bytes, at most {self._limit:,} are taken")
                future: Future = Future()
                self._queue.put((endpoint, arrays, future))
                try:
                    answers.append(future.result())
                except BadRequest as error:
                    raise PyTritonInvalidOperationError(str(error)) from None
            return answers

        return infer


def ready(url: str, endpoint: str = "") -> bool:
    """Whether Triton at this address says that it is ready, or that it is with this endpoint."""
    path = f"models/{quote(endpoint, safe='')}" if endpoint else "health"
    try:
        with urllib.request.urlopen(f"{url}/v2/{path}/ready", timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _restricted() -> list[str]:
    from pytriton.triton import DEFAULT_PROTECTED_ENDPOINTS

    return ["inference", *DEFAULT_PROTECTED_ENDPOINTS]


def _tensor(field: Field) -> Any:
    from pytriton.model_config import Tensor

    return Tensor(name=field.name, dtype=field.dtype, shape=(-1,) * field.ndim)


def _free_ports(host: str, count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((host, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
