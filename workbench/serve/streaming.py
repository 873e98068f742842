"""Requests whose answers come in parts, over PyTriton: sealed JSON there and back, each part bound to its request and its place among the parts."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from workbench.backends import scratch
from workbench.serve import sealed
from workbench.serve.sealed import Box, NotSealed
from workbench.serve.server import DENIED
from workbench.serve.triton import STREAM_PATH, TEXT, Triton

MODEL = "answers"
CONNECT_S = 10.0
Parts = Callable[[Mapping[str, Any]], AsyncIterator[Mapping[str, Any]]]
"""From a request to the parts of its answer. Called in PyTriton's event loop."""


class Broken(RuntimeError):
    """The other end is gone, or what came is not what it sent."""


@contextmanager
def serving(key: bytes, answer: Parts) -> Iterator[Triton]:
    """Triton with the one model, on a UNIX socket of this user's. `key` is what requests are sealed with."""

    async def stream(text: str) -> AsyncIterator[str]:
        from pytriton.exceptions import PyTritonInvalidOperationError

        try:
            box = _box(text)
            request = _opened(key, MODEL, box)
        except NotSealed:
            raise PyTritonInvalidOperationError(DENIED) from None
        number = 0
        async for part in answer(request):
            yield _closed(key, _purpose(number), part, box.nonce)
            number += 1
        yield _closed(key, _purpose(number), {}, box.nonce)

    with scratch.folder() as folder, Triton(folder, {}, {MODEL: stream}) as triton:
        yield triton


class Asking:
    """Asks the decoder behind a Triton socket. Used in one event loop."""

    def __init__(self, socket: Path, key: bytes):
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)  # Triton would wait for those that are kept, at its end
        self._client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(uds=str(socket), limits=limits), timeout=httpx2.Timeout(None, connect=CONNECT_S), trust_env=False
        )
        self._key = key

    async def parts(self, request: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        """The parts of the answer as they come. Raises Broken where they do not come to their end."""
        text = _closed(self._key, MODEL, request)
        nonce, number = _box(text).nonce, 0
        try:
            async with self._client.stream("POST", f"http://triton{STREAM_PATH.format(MODEL)}", json={TEXT: [text]}) as response:
                async for line in response.aiter_lines():
                    if not line.startswith("data:"):
                        continue
                    part = _opened(self._key, _purpose(number), _box(_text(line)), nonce)
                    if not part:
                        return
                    yield part
                    number += 1
        except (httpx2.HTTPError, NotSealed) as error:
            raise Broken(f"the decoder did not answer: {type(error).__name__}: {error}") from None
        raise Broken("the decoder ended in the middle of an answer")

    async def close(self) -> None:
        await self._client.aclose()


def _text(line: str) -> str:
    """Raises Broken with Triton's message where it is one."""
    said = json.loads(line.removeprefix("data:"))
    if "error" in said:
        raise Broken(str(said["error"]).partition("Traceback")[0][:200])
    return str(said[TEXT])


def _purpose(number: int) -> str:
    return f"{MODEL} {number}"


def _closed(key: bytes, purpose: str, tree: Mapping[str, Any], question: bytes = b"") -> str:
    content = {"json": np.array([json.dumps(tree).encode()], object)}
    return base64.b64encode(sealed.close(key, purpose, content, question).data.tobytes()).decode()


def _opened(key: bytes, purpose: str, box: Box, question: bytes = b"") -> Mapping[str, Any]:
    return json.loads(sealed.unseal(key, purpose, box, question)["json"][0])


def _box(text: str) -> Box:
    """Raises NotSealed for what is no base64."""
    try:
        return Box(np.frombuffer(base64.b64decode(text, validate=True), np.uint8))
    except ValueError:
        raise NotSealed("no base64") from None
