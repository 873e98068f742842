"""The app's gate: every request and every message of a WebSocket passes it, or is refused with the reason and the way in."""

from __future__ import annotations

import ipaddress
import sys
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from ui import door, headers, origin
from ui.access import Access, cookie_name
from workbench.machines import connections, logins

COOKIE_AGE_S = 30 * 24 * 3600
PROXY_HEADERS = ("x-forwarded-for", "x-forwarded-proto", "forwarded")
OTHERS = "This app belongs to another user of this machine. Start your own on a port of its own: workbench app --port 8502"
PROXY = "The owner's app does not tell users apart behind a proxy, and answers none. From another machine: ssh -L 8501:localhost:8501 this-machine"
NOT_LOOPBACK = "This app is its owner's alone and answers on 127.0.0.1. To let others read: WORKBENCH_APP=team, see the README"
POLICY_VIOLATION = 1008


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered. Without a login the browser is shown the way to one."""

    reason: str
    login: bool = False


class Gate:
    """ASGI middleware. Outermost: what it refuses reaches no route, and what it lets through is answered with the headers of `ui.headers`."""

    def __init__(self, app: ASGIApp, access: Access):
        self._app, self._access = app, access
        self._kernel_tells = access.mode == "team" or connections.kernel_tells()
        if not self._kernel_tells:
            warning = "warning: this kernel does not tell whose a connection is: only the login token keeps this machine's other users out"
            print(warning, file=sys.stderr, flush=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        asked = HTTPConnection(scope)
        own = origin.own_origin(asked.headers.get("host", ""), scope["scheme"], self._access.origins)
        refusal = self._of_connection(asked) or self._of_origin(asked)
        if scope["type"] == "websocket":
            if refusal := refusal or self._of_login(asked, own):
                await WebSocketClose(POLICY_VIOLATION, refusal.reason[:100])(scope, receive, send)
            else:
                await self._while_logged_in(scope, receive, send, _session(asked, own))
            return

        async def answered(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers.add(MutableHeaders(scope=message), own)
            await send(message)

        if refusal is None and scope["method"] in origin.READS and "token" in asked.query_params:
            await self._log_in(asked, own)(scope, receive, answered)
        elif refusal := refusal or self._of_login(asked, own):
            await door.closed(asked, refusal.reason, self._access.mode if refusal.login else None)(scope, receive, answered)
        else:
            await self._app(scope, receive, answered)

    async def _while_logged_in(self, scope: Scope, receive: Receive, send: Send, session: str) -> None:
        """A WebSocket that is closed in place of the first message, either way, after its session has ended."""
        ended = False

        async def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "the login has ended"})

        async def received() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive" and not self._access.who(session):
                await end()
                return {"type": "websocket.disconnect", "code": POLICY_VIOLATION}
            return message

        async def sent(message: Message) -> None:
            if ended:
                return
            if message["type"] == "websocket.send" and not self._access.who(session):
                await end()
                return
            await send(message)

        await self._app(scope, received, sent)

    def _of_connection(self, asked: HTTPConnection) -> Refusal | None:
        """By whose connection it is. In team mode it is the proxy's, and only the login counts."""
        if self._access.mode == "team":
            return None
        server = asked.scope.get("server")
        if not server or not _is_loopback(server[0]):
            return Refusal(NOT_LOOPBACK)
        if any(name in asked.headers for name in PROXY_HEADERS) or asked.client is None:
            return Refusal(PROXY)  # whoever writes these headers names the client: the connection is not known any more
        if self._kernel_tells and not connections.is_ours((asked.client.host, asked.client.port), (server[0], server[1])):
            return Refusal(OTHERS)
        return None

    def _of_origin(self, asked: HTTPConnection) -> Refusal | None:
        reason = origin.refusal(asked, self._access.origins)
        return Refusal(reason) if reason else None

    def _of_login(self, asked: HTTPConnection, own: str) -> Refusal | None:
        return None if self._access.who(_session(asked, own)) else Refusal("This browser is not logged in", login=True)

    def _log_in(self, asked: HTTPConnection, own: str) -> Response:
        """To the same page without the token, with the cookie; or the way to a token that is valid."""
        session = logins.session_of(asked.query_params["token"])
        query = [(name, value) for name, value in parse_qsl(asked.scope["query_string"].decode("latin-1"), True) if name != "token"]
        asked.scope["query_string"] = urlencode(query).encode()  # what a server's access log says of this request afterwards
        if not self._access.who(session):
            return door.closed(asked, "This link's token is not, or no longer, valid", self._access.mode)
        page = "/" + quote(asked.scope["path"].lstrip("/")) + (f"?{urlencode(query)}" if query else "")
        answer = RedirectResponse(page, 303, {"cache-control": "no-store"})
        answer.set_cookie(cookie_name(own), session, max_age=COOKIE_AGE_S, httponly=True, secure=own.startswith("https"), samesite="lax")
        return answer


def _session(asked: HTTPConnection, own: str) -> str:
    return asked.cookies.get(cookie_name(own), "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
