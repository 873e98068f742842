"""Only the app's owner is answered: every user of a machine can reach its loopback ports, and an app that starts runs runs what its user names."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import sys

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

SOCK_DIAG, SOCK_DIAG_BY_FAMILY, ANY = 4, 20, 0xFFFFFFFF
OTHERS = "This app belongs to another user of this machine. Start your own on a port of its own: streamlit run app --server.port=8502"
PROXY = "The app does not tell users apart behind a proxy, and answers none. From another machine: ssh -L 8501:localhost:8501 this-machine"


class Owner:
    """ASGI middleware that refuses other users' connections to a loopback address; root's are answered. It needs a kernel that tells (Linux does)."""

    def __init__(self, app: ASGIApp):
        self._app, self._told = app, tells()
        if not self._told:
            print(
                "warning: this kernel does not tell whose a connection is: every user of this machine can open the app", file=sys.stderr, flush=True
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(HTTPConnection(scope)) if scope["type"] in ("http", "websocket") else ""
        if not refusal:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await WebSocketClose(1008, refusal[:100])(scope, receive, send)
        else:
            await PlainTextResponse(refusal, 403)(scope, receive, send)

    def _refusal(self, asked: HTTPConnection) -> str:
        """Why the connection is not answered; nothing where it is."""
        server = asked.scope.get("server")
        if not self._told or not server or not _loopback(server[0]):  # who opens it to a network means to
            return ""
        if "x-forwarded-for" in asked.headers or asked.client is None:
            return PROXY  # whoever writes this header names the client: the connection is not known any more
        mine = user_of((asked.client.host, asked.client.port), (server[0], server[1])) in (0, os.getuid())
        return "" if mine else OTHERS


def user_of(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Whose the client's end of an IPv4 connection of this machine is; None where the kernel knows no such connection. Raises OSError where it cannot be asked.

    Asked by netlink (sock_diag(7)), for exactly this one: /proc/net/tcp lists all, which takes tens of milliseconds on a busy machine.
    """
    ends = struct.pack("!HH4s12x4s12x", client[1], server[1], socket.inet_aton(client[0]), socket.inet_aton(server[0]))
    request = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, ANY) + ends + struct.pack("=III", 0, ANY, ANY)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as kernel:
        kernel.send(struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, 1, 0, 0) + request)
        answer = kernel.recv(4096)
    (kind,) = struct.unpack_from("=H", answer, 4)
    return struct.unpack_from("=I", answer, 80)[0] if kind == SOCK_DIAG_BY_FAMILY else None


def tells() -> bool:
    """Whether the kernel can be asked: tried on a connection of our own."""
    with socket.create_server(("127.0.0.1", 0)) as there, socket.create_connection(there.getsockname()) as here:
        try:
            return user_of(here.getsockname(), there.getsockname()) == os.getuid()
        except OSError:
            return False


def _loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.version == 4 and address.is_loopback
