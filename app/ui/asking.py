"""The routes by which the Steer and Chat pages ask the endpoints: the browser asks the app, and the app, which has the token, the endpoint.

Who may ask is decided before (`ui.gate`); in an app that only reads nobody may.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ui.access import OWNER_ONLY
from workbench import api
from workbench.rundir import permission

HEADERS = {"cache-control": "no-store"}
LARGEST = 4 << 20
"""Bytes of a request: several columns, each with its conversation."""
_going: weakref.WeakSet[api.Answers] = weakref.WeakSet()


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    questions: list[api.Question] = Field(min_length=1)


class _Stopped(BaseModel):
    model_config = ConfigDict(extra="forbid")

    ids: list[str]


class _Requested(BaseModel):
    model_config = ConfigDict(extra="forbid")

    endpoint: str
    model: str
    attributes: dict[str, float]


class _Preset(BaseModel):
    """Without attributes: the preset is forgotten."""

    model_config = ConfigDict(extra="forbid")

    name: str
    attributes: dict[str, float] | None


class _Events(StreamingResponse):
    """The answers as server-sent events. When the browser hangs up, what is still being answered is cancelled."""

    def __init__(self, answers: api.Answers) -> None:
        super().__init__(_events(answers), media_type="text/event-stream", headers=HEADERS)
        self._answers = answers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answers.close()


async def _events(answers: api.Answers) -> AsyncIterator[str]:
    while (events := await run_in_threadpool(answers.next)) is not None:
        yield "".join(f"data: {json.dumps(event)}\n\n" for event in events) or ": waiting\n\n"


async def ask(request: Request) -> Response:
    """POST /ask/answers: a stream of `workbench.steering.asking.Event`s, until every question has its answer."""
    asked = _Asked.model_validate_json(await _body(request))
    answers = api.Answers(asked.questions, api.endpoint)
    _going.add(answers)
    return _Events(answers)


async def stop(request: Request) -> Response:
    """POST /ask/stop: cancel these questions."""
    stopped = _Stopped.model_validate_json(await _body(request))
    for answers in list(_going):
        answers.stop(stopped.ids)
    return _json({})


async def reach(request: Request) -> Response:
    """POST /ask/reach: whether training rows have ratings like the requested ones, and the nearest that they have."""
    requested = _Requested.model_validate_json(await _body(request))
    return _json(await run_in_threadpool(api.reach, requested.endpoint, requested.model, requested.attributes))


async def presets(request: Request) -> Response:
    """GET /ask/presets: all; POST keeps one, or forgets it."""
    if request.method == "POST":
        preset = _Preset.model_validate_json(await _body(request))
        if preset.attributes is None:
            await run_in_threadpool(api.remove_preset, preset.name)
        else:
            await run_in_threadpool(api.save_preset, preset.name, preset.attributes)
    return _json({"presets": await run_in_threadpool(api.presets)})


def _json(value: object, status: int = 200) -> JSONResponse:
    return JSONResponse(value, status, HEADERS)


async def _body(request: Request) -> bytes:
    """Raises ValueError for a body that is too large."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST:
            raise ValueError(f"a request has at most {LARGEST >> 20} MiB")
    return body


def _refusing(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """With the reason of what is refused as JSON: to whom the app does not belong, and for what is wrong in the request."""

    async def checked(request: Request) -> Response:
        if permission.refusal():
            return _json({"error": OWNER_ONLY}, 403)
        try:
            return await answer(request)
        except ValidationError as error:
            first = error.errors()[0]
            return _json({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 400)
        except (ValueError, OSError) as error:
            return _json({"error": str(error)}, 400)

    return checked


def routes() -> Sequence[Route]:
    """The routes for `App(…, routes=…)`."""
    return [
        Route("/ask/answers", _refusing(ask), methods=["POST"]),
        Route("/ask/stop", _refusing(stop), methods=["POST"]),
        Route("/ask/reach", _refusing(reach), methods=["POST"]),
        Route("/ask/presets", _refusing(presets), methods=["GET", "POST"]),
    ]
