"""The HTTP side of a policy endpoint: OpenAI's completions, chat completions and models, in front of the decoder behind PyTriton."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from workbench.serve.exchange import Exchange
from workbench.serve.offered import Offered
from workbench.serve.questions import ChatRequest, CompletionRequest, HttpError, MeasureRequest, parsed
from workbench.serve.streaming import Asking, Broken
from workbench.settings.naming import nearest

T = TypeVar("T")
BODY_S = 60.0
"""How long a request's body may take to come."""
Measure = Callable[[Sequence[Mapping[str, str]], str], Awaitable[tuple[Mapping[str, float], Mapping[str, str]]]]
"""From the prompt's messages and an answer to ratings and what rated, by attribute. Raises ValueError with the reason."""


class Front:
    """The routes. `max_waiting` prompts may be waiting or answered at a time."""

    def __init__(self, models: Sequence[Offered], asking: Asking, max_waiting: int, measure: Measure | None = None):
        self._models = {model.id: model for model in models}
        self._asking, self._max_waiting, self._measure = asking, max_waiting, measure
        self._busy = 0
        self._cancelling: set[asyncio.Task[None]] = set()

    def app(self) -> Starlette:
        routes = [
            Route("/v1/models", self._handled(self.models), methods=["GET"]),
            Route("/v1/models/{id:path}", self._handled(self.one_model), methods=["GET"]),
            Route("/v1/chat/completions", self._handled(self.chat), methods=["POST"]),
            Route("/v1/completions", self._handled(self.completions), methods=["POST"]),
            Route("/v1/attributes", self._handled(self.attributes), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={404: _unknown, 405: _unknown})

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [model.entry for model in self._models.values()]})

    async def one_model(self, request: Request) -> Response:
        return JSONResponse(self._model(request.path_params["id"]).entry)

    async def chat(self, request: Request) -> Response:
        asked = parsed(ChatRequest, await _body(request))
        model = self._model(asked.model)
        prompt = await asyncio.to_thread(model.prompt, asked.messages, asked.attributes)
        return await self._answered(request, Exchange(model, asked, [prompt]))

    async def completions(self, request: Request) -> Response:
        asked = parsed(CompletionRequest, await _body(request))
        model = self._model(asked.model)
        prompts = await asyncio.to_thread(lambda: [model.tokens(prompt) for prompt in asked.prompts])
        return await self._answered(request, Exchange(model, asked, prompts))

    async def attributes(self, request: Request) -> Response:
        if self._measure is None:
            raise HttpError(404, "this endpoint measures no attributes: start it with job.measure=CHECKPOINT or job.rules=[…]")
        asked = parsed(MeasureRequest, await _body(request))
        if asked.messages[-1].role != "assistant":
            raise HttpError(400, "the last message is the answer to be measured: an assistant's", "messages")
        messages = [{"role": each.role, "content": each.text} for each in asked.messages]
        try:
            ratings, by = await self._measure(messages[:-1], messages[-1]["content"])
        except ValueError as error:
            raise HttpError(400, str(error), "messages") from None
        except Broken as error:
            raise HttpError(503, str(error)) from None
        return JSONResponse({"attributes": dict(ratings), "measured_by": dict(by)})

    def _model(self, name: str) -> Offered:
        if name not in self._models:
            known = list(self._models)
            raise HttpError(404, f"there is no model {name!r}{nearest(name, known)}; there are: {', '.join(known)}", "model", "model_not_found")
        return self._models[name]

    async def _answered(self, request: Request, exchange: Exchange) -> Response:
        if self._busy + len(exchange.prompts) > self._max_waiting:
            raise HttpError(
                429, f"{self._busy} prompts are waiting or being answered, at most {self._max_waiting} are taken (job.max_waiting): try again later"
            )
        if exchange.request.stream_options and not exchange.request.stream:
            raise HttpError(400, "stream_options needs stream=true", "stream_options")
        exchange.begin_echo()
        if exchange.request.stream:
            return StreamingResponse(self._chunks(exchange), media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        return JSONResponse(await _unless_gone(request, self._whole(exchange)))

    async def _whole(self, exchange: Exchange) -> dict[str, Any]:
        async for _ in self._changes(exchange):
            pass
        return exchange.whole()

    async def _chunks(self, exchange: Exchange) -> AsyncIterator[str]:
        """Server-sent events. An error after the first is one more event."""
        begun: set[int] = set()
        changes = self._changes(exchange)
        try:
            async for index in changes:
                chunk = exchange.chunk(index, first=index not in begun)
                if chunk is not None:
                    begun.add(index)
                    yield _event(chunk)
            options = exchange.request.stream_options
            if options and options.include_usage:
                yield _event(exchange.last_chunk())
            yield "data: [DONE]\n\n"
        except HttpError as error:
            yield _event(error.body)
        finally:
            await changes.aclose()

    async def _changes(self, exchange: Exchange) -> AsyncGenerator[int, None]:
        """As the exchange's, counted while they last; what is not awaited to its end is given up at the decoder."""
        count, ended = len(exchange.prompts), False
        self._busy += count
        changes = exchange.changes(self._asking)
        try:
            async for index in changes:
                yield index
                if exchange.ahead:
                    break
            else:
                ended = True
        except Broken as error:
            raise HttpError(503, str(error)) from None
        finally:
            self._busy -= count
            if not ended:
                task = asyncio.create_task(self._cancel(exchange.names))
                self._cancelling.add(task)
                task.add_done_callback(self._cancelling.discard)
            await changes.aclose()

    async def _cancel(self, names: Sequence[str]) -> None:
        with suppress(Broken):  # a decoder that is gone has given them up
            async for _ in self._asking.parts({"op": "cancel", "names": list(names)}):
                pass

    def _handled(self, handle: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except HttpError as error:
                return JSONResponse(error.body, error.status)

        return answer


async def _body(request: Request) -> object:
    """Raises HttpError for what is no JSON, and for a body that does not come."""
    try:
        async with asyncio.timeout(BODY_S):
            text = await request.body()
    except TimeoutError:
        raise HttpError(408, f"the request's body did not come within {BODY_S:.0f} s") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise HttpError(400, "the request's body is no JSON") from None


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result. Who asked may go: the work is cancelled then."""
    task, gone = asyncio.create_task(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            raise HttpError(499, "whoever asked has gone")
        return task.result()
    finally:
        gone.cancel()


def _event(tree: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(tree, ensure_ascii=False)}\n\n"


async def _unknown(request: Request, error: Exception) -> Response:
    what = HttpError(getattr(error, "status_code", 404), f"there is no {request.method} {request.url.path} here")
    return JSONResponse(what.body, what.status)
