"""A policy endpoint that needs no model: it answers by the attributes of the request, a word at a time, and measures what it said. Its run looks like a real one.

`with serving(root) as endpoint`: a run of the kind serve under `root`. A prompt with the word "hold" is answered up to its third word until `endpoint.release()`; one with
"break" breaks off there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn import Config, Server

from tests.waiting import until
from workbench.rundir import store
from workbench.rundir.files import write_atomic
from workbench.rundir.store import RunDir, State

STEERING = {"attributes": ["verbosity", "quality", "humor"], "lowest": 0, "highest": 4, "layout": "system"}
VECTORS = [[verbosity, quality, humor] for verbosity in range(5) for quality in (1, 2, 3, 4) for humor in (0, 1, 2) if quality + humor < 6]
COUNTS = [max(1, 40 - 8 * abs(v - 2) - 6 * abs(q - 3) - 3 * h) for v, q, h in VECTORS]
VERSE = [
    "A",
    "map",
    "shows",
    "where",
    "things",
    "are",
    "and",
    "how",
    "far",
    "apart",
    "they",
    "lie,",
    "so",
    "you",
    "can",
    "plan",
    "a",
    "way",
    "before",
    "you",
    "take",
    "the",
    "first",
    "step",
    "and",
    "find",
    "it",
    "again",
    "when",
    "a",
    "sign",
    "is",
    "missing.",
    "It",
    "also",
    "tells",
    "what",
    "lies",
    "beside",
    "the",
    "road:",
    "rivers,",
    "hills,",
    "the",
    "names",
    "of",
    "places.",
]
WORDS = (3, 9, 16, 26, 40)


@dataclass
class Endpoint:
    """`asked` has the body of each request; `cancelled` counts those whose client hung up."""

    run: RunDir
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    asked: list[dict[str, Any]] = field(default_factory=list)
    cancelled: int = 0
    pause_s: float = 0.0
    measures: bool = True
    url: str = ""
    _released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        self._released.set()

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/models", self.models),
                Route("/v1/chat/completions", self.complete, methods=["POST"]),
                Route("/v1/attributes", self.attributes, methods=["POST"]),
            ]
        )

    def models(self, request: Request) -> Response:
        steered = {**STEERING, "vectors": VECTORS, "counts": COUNTS}
        ids = [("steerlm", 80, steered), ("base", None, None), ("steerlm-2", 160, steered)]
        data = [
            {"id": name, "object": "model", "owned_by": "workbench", "steering": steering, "source": f"/runs/{name}", "step": step}
            for name, step, steering in ids
        ]
        return self._answer(request, {"object": "list", "data": data})

    async def attributes(self, request: Request) -> Response:
        if not self.measures:
            return JSONResponse({"error": {"message": "this endpoint measures nothing: start it with job.measure or job.rules"}}, 404)
        said = (await request.json())["messages"][-1]["content"].split()
        level = max(level for level, words in enumerate(WORDS) if len(said) >= words or level == 0)
        return self._answer(
            request, {"attributes": {"verbosity": level, "quality": 2.6}, "measured_by": {"verbosity": "rule", "quality": "attribute-model"}}
        )

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if body.get("attributes") and body["model"] == "base":
            return JSONResponse({"error": {"message": "base was not trained with attributes"}}, 400)
        return StreamingResponse(self._stream(body), media_type="text/event-stream")

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        prompt, attributes = body["messages"][-1]["content"], body.get("attributes") or {}
        words = [*body["model"].upper().split(), *VERSE, *VERSE][: 1 + WORDS[int(attributes.get("verbosity", 2))]]
        try:
            for place, word in enumerate(words):
                if place == 3 and "hold" in prompt:
                    while not self._released.is_set():
                        await asyncio.sleep(0.02)
                if place == 3 and "break" in prompt:
                    return
                if self.pause_s:
                    await asyncio.sleep(self.pause_s)
                yield self._chunk(word if not place else f" {word}", None, [place])
            yield self._chunk("", "stop", []) + "data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise

    def _chunk(self, text: str, end: str | None, ids: Sequence[int]) -> str:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": end, "token_ids": list(ids)}
        return f"data: {json.dumps({'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"

    def _answer(self, request: Request, body: object) -> Response:
        if request.headers.get("authorization") != f"Bearer {self.token}":
            return JSONResponse({"error": {"message": "wrong token"}}, 401)
        return JSONResponse(body)


def made(root: Path, name: str = "serve", state: State = State.RUNNING, message: str = "") -> RunDir:
    """The folder of a run that serves, without its endpoint."""
    spec = {
        "name": name,
        "job": {"name": "serve", "checkpoints": ["steerlm"]},
        "model": {"source": "smollm2-135m-instruct"},
        "backend": {"name": "local"},
    }
    run = store.create(root, name, yaml.safe_dump(spec))
    job = {"backend": "local", "id": "1", "host": "elsewhere", "started": 0.0}
    run.update(state=state, attempt=1, message=message, job=job, created=time.time())
    return run


@contextlib.contextmanager
def serving(root: Path, name: str = "serve", pause_s: float = 0.0) -> Iterator[Endpoint]:
    endpoint = Endpoint(made(root, name), pause_s=pause_s)
    server = Server(Config(endpoint.app(), host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    endpoint.url = f"http://127.0.0.1:{port}"
    folder = endpoint.run.path / "endpoints"
    folder.mkdir(exist_ok=True)
    write_atomic(folder / "http.json", json.dumps({"url": endpoint.url, "token": endpoint.token}))
    try:
        yield endpoint
    finally:
        endpoint.release()
        server.should_exit = True
        thread.join()
