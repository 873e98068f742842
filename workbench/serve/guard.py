"""Who is answered by the HTTP side of an endpoint: programs of its owner with the token; no other user of the machine, and no page of a browser.

A connection of another user's is closed before a byte of it is read, and one that stays silent after a while. Of a request the host, the origin and the
token are looked at before its body.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from workbench.machines import connections
from workbench.serve.questions import HttpError

HEADERS_S = 10.0
"""How long a new connection may take to send the first request's headers."""
OF_BROWSERS = ("origin", "sec-fetch-site", "sec-fetch-mode")
"""Headers that browsers send with what a page asks, and programs do not."""


class OwnersConnection(H11Protocol):
    """A connection of HTTP: kept where its other end is this user's (or root's), on a socket that only the owner reaches in any case."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if self.client and self.server and not self._is_ours(self.client, self.server):
            transport.abort()
            return
        self.loop.call_later(HEADERS_S, self._close_if_silent)

    def _is_ours(self, client: tuple[str, int], server: tuple[str, int | None]) -> bool:
        return KERNEL_TELLS is False or connections.is_ours(client, (server[0], server[1] or 0))

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()


KERNEL_TELLS = connections.kernel_tells()
"""Whether this system says whose a connection is (Linux does); elsewhere the token alone keeps others out."""


class Guard:
    """ASGI middleware, outermost. `hosts` are the values of the Host header by which the endpoint is meant to be reached."""

    def __init__(self, app: ASGIApp, token: str, hosts: Sequence[str], max_request_bytes: int):
        self._app, self._token, self._hosts, self._most = app, token.encode(), frozenset(hosts), max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        if refused := self._refusal(headers, scope["method"]):
            await _answer(send, refused)
            return
        got = 0

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self._most:
                raise self._too_large()  # which the application answers
            return message

        await self._app(scope, counted, send)

    def _refusal(self, headers: Headers, method: str) -> HttpError | None:
        if headers.get("host", "").lower() not in self._hosts:
            return HttpError(403, "this host is not the endpoint's: use the address in endpoints/http.json")
        if any(name in headers for name in OF_BROWSERS):
            return HttpError(403, "pages of a browser are not answered")
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode("utf-8", "surrogateescape"), self._token):
            return HttpError(
                401, "the token is missing or wrong: `Authorization: Bearer TOKEN`, with the token of endpoints/http.json", None, "invalid_api_key"
            )
        if method == "POST" and headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return HttpError(415, "Content-Type: application/json is wanted")
        length = headers.get("content-length", "0")
        return self._too_large() if not length.isdecimal() or int(length) > self._most else None

    def _too_large(self) -> HttpError:
        return HttpError(413, f"a request has at most {self._most >> 20} MiB (job.max_request_mb)")


async def _answer(send: Send, error: HttpError) -> None:
    body = json.dumps(error.body).encode()
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
