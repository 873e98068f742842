"""PyTriton's Triton on a UNIX socket: no port, no key in its arguments, and nothing to load or change once it runs.

PyTriton's own `Triton` starts the server with explicit model control (whoever reaches it loads a model, which is code) and puts the key of the
rest into the arguments, which every user of the machine can read. Here the model repository is complete before the server starts, and of
Triton's endpoints only health, metadata, model configuration and inference answer; the others ask for a header that no request can carry.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections.abc import AsyncIterator, Callable, Mapping
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from workbench.backends import scratch
from workbench.serve import addresses

BOX, TEXT = "box", "text"
"""The one input and the one output that each model has, and each that gives a stream of answers: a text can pass Triton's streams of JSON."""
OFF = ("shared-memory", "model-repository", "statistics", "trace", "logging")
IMPOSSIBLE_HEADER = "no:request:has=this"
"""The name of an HTTP header has no colon (RFC 9110, section 5.1): the server takes what stands before the first for the name."""
READY_S, POLL_S = 60.0, 0.05
SHM_BYTES, SHM_GROWTH_BYTES = 4 << 20, 1 << 20
LENGTH_HEADER = "Inference-Header-Content-Length"
NOISE = "NODELAY NOT SUPPORTED"
"""What Triton prints of every connection to a UNIX socket."""

Answer = Callable[[np.ndarray], np.ndarray]
"""From the bytes of a request to the bytes of its answer."""
Stream = Callable[[str], AsyncIterator[str]]
"""From a request to its answers, one after another."""
STREAM_PATH = "/v2/models/{}/generate_stream"


class Triton:
    """Triton with one model a name, each answered by its function in a thread of its own. `folder` is private to this process.

    Those of `streams` are decoupled: many requests at a time, each with answers as they come.
    """

    def __init__(self, folder: Path, models: Mapping[str, Answer], streams: Mapping[str, Stream] | None = None):
        from pytriton.decorators import TritonContext
        from pytriton.model_config import ModelConfig, Tensor
        from pytriton.models.model import Model
        from pytriton.utils.workspace import Workspace

        self._folder, self._workspace = folder, Workspace(folder / "triton")
        self.socket = folder / "http.sock"
        self.address = addresses.unix(self.socket)
        box, text = Tensor(name=BOX, dtype=np.uint8, shape=(-1,)), Tensor(name=TEXT, dtype=bytes, shape=(-1,))
        whole = [(name, _of_requests(answer), box, False) for name, answer in models.items()]
        parts = [(name, _of_streams(answer), text, True) for name, answer in (streams or {}).items()]
        self._models = [
            Model(
                model_name=name,
                model_version=1,
                inference_fn=function,
                inputs=[tensor],
                outputs=[tensor],
                config=ModelConfig(batching=False, decoupled=decoupled),
                workspace=self._workspace,
                triton_context=TritonContext(),
                strict=True,
            )
            for name, function, tensor, decoupled in (*whole, *parts)
        ]
        for model in self._models:
            model.generate_model(self._workspace.model_store_path)
        self._server = _server(self._folder, self._workspace.model_store_path)
        self._kept: set[str] = set()

    def __enter__(self) -> Triton:
        """Start, and wait until it is ready. Raises RuntimeError where it dies or is not ready in time."""
        self._server.start()
        deadline = time.monotonic() + READY_S
        while not addresses.ready(self.address):
            if not self._server.is_alive() or time.monotonic() > deadline:
                self.__exit__(None, None, None)
                raise RuntimeError(f"Triton did not become ready within {READY_S:.0f} s:\n{self._server.logs()[-2000:]}")
            time.sleep(POLL_S)
        for model in self._models:
            model.setup()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.stop()
        for model in self._models:
            model.clean()
        self._workspace.clean()

    def is_alive(self) -> bool:
        return self._server.is_alive() and all(model.is_alive() for model in self._models)

    def keep_account(self) -> None:
        """Note what this process leaves in shared memory if it is killed: what PyTriton passes arrays in, as far as it is known here."""
        stores = (getattr(model._serializer_deserializer, "_tensor_store", None) for model in self._models)
        segments = {name for store in stores if store for name in list(store._shm_segments)}
        if segments != self._kept:
            scratch.owns(self._folder, segments)
            self._kept = segments


def infer(connection: HTTPConnection, model: str, data: np.ndarray) -> tuple[int, np.ndarray | str]:
    """The status and the answer's bytes, or Triton's message. Raises OSError or HTTPException where there is no answer."""
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    given = InferInput(BOX, [len(data)], "UINT8")
    given.set_data_from_numpy(data)
    body, head = InferenceServerClient.generate_request_body([given], outputs=[InferRequestedOutput(BOX)])
    connection.request("POST", f"/v2/models/{model}/infer", body, {} if head is None else {LENGTH_HEADER: str(head)})
    answer = connection.getresponse()
    got = answer.read()
    if answer.status != 200:
        return answer.status, got.decode(errors="replace")
    length = answer.getheader(LENGTH_HEADER)
    given_back = InferenceServerClient.parse_response_body(got, header_length=int(length) if length else None).as_numpy(BOX)
    assert given_back is not None, f"Triton's answer has {BOX}"
    return answer.status, given_back


def _of_requests(answer: Answer) -> Callable[[Any], Any]:
    def infer(requests: Any) -> Any:
        return [{BOX: answer(np.asarray(request.data[BOX]))} for request in requests]

    return infer


def _of_streams(answer: Stream) -> Callable[[Any], Any]:
    async def infer(requests: Any) -> AsyncIterator[Any]:
        (request,) = requests
        async for text in answer(request.data[TEXT][0].decode()):
            yield [{TEXT: np.array([text.encode()], object)}]

    return infer


def _server(folder: Path, repository: Path) -> Any:
    from pytriton.server.python_backend_config import PythonBackendConfig
    from pytriton.server.triton_server import TritonServer
    from pytriton.server.triton_server_config import TritonServerConfig
    from pytriton.utils.distribution import get_libs_path, get_root_module_path

    class Server(TritonServer):
        def _record_logs(self, line: bytes | str) -> None:
            if NOISE not in (line if isinstance(line, str) else line.decode("utf-8", errors="replace")):
                super()._record_logs(line)

    # Triton's python stub loads the system's libpython unless this one's folder comes first.
    os.environ["LD_LIBRARY_PATH"] = ":".join(filter(None, [sysconfig.get_config_var("LIBDIR"), os.environ.get("LD_LIBRARY_PATH")]))
    distribution = get_root_module_path() / "tritonserver"
    backend = PythonBackendConfig()
    backend["shm-region-prefix-name"] = folder.name  # so that whoever removes the folder finds it
    backend["shm-default-byte-size"] = SHM_BYTES
    backend["shm-growth-byte-size"] = SHM_GROWTH_BYTES
    config = TritonServerConfig()
    for name, value in {
        "model-repository": str(repository),
        "model-control-mode": "none",
        "backend-directory": str(_backends(folder, distribution)),
        "backend-config": backend.to_list_args(),
        "cache-directory": str(distribution / "caches"),
        "http-address": addresses.unix(folder / "http.sock"),
        "http-port": "1",  # of no meaning on a UNIX socket, and asked for
        "http-restricted-api": f"{','.join(OFF)}:{IMPOSSIBLE_HEADER}",
        "allow-grpc": "false",
        "allow-metrics": "false",
        "exit-timeout-secs": "5",
    }.items():
        config[name] = value
    return Server(path=distribution / "bin" / "tritonserver", libs_path=get_libs_path(), config=config)


def _backends(folder: Path, distribution: Path) -> Path:
    """Triton's backends with the stub of this Python among them, as links: a copy of the server takes 44 MB."""
    from pytriton.utils.distribution import get_stub_path

    made = folder / "backends" / "python"
    made.mkdir(parents=True)
    for path in (distribution / "backends" / "python").iterdir():
        (made / path.name).symlink_to(path)
    stub = made / "triton_python_backend_stub"
    stub.unlink(missing_ok=True)
    stub.symlink_to(get_stub_path(f"{sys.version_info.major}.{sys.version_info.minor}"))
    return made.parent
