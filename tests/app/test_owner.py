"""Who is answered on a loopback port: the kernel says whose a connection is."""

import os
import socket
import subprocess
import sys
import threading

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from ui import gate
from ui.access import Access
from ui.gate import Gate

from workbench.machines.connections import is_ours, user_of

NOBODY = 65534
ASK = """
import os, socket, sys
"".encode("idna")  # what Python looks up as root, it may not find as another user
user, port, what, more = sys.argv[1:]
os.setuid(int(user))
with socket.create_connection(("127.0.0.1", int(port)), 120) as end:
    end.sendall(f"{what} HTTP/1.1\\r\\nHost: localhost\\r\\nCookie: workbench-80=of-the-owner\\r\\n{more}\\r\\n".encode())
    while part := end.recv(4096):
        print(part.decode(errors="replace"))
"""
SESSION = "of-the-owner"
CLOSE = "Connection: close\r\n"
SOCKET = "Origin: http://localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"


@pytest.fixture
def port():
    """The middleware before an app of a page and a websocket, as uvicorn serves them."""

    async def page(_):
        return PlainTextResponse("yours")

    async def talk(ws):
        await ws.accept()
        await ws.close()

    app = Gate(Starlette(routes=[Route("/", page), WebSocketRoute("/talk", talk)]), Access("owner", session=SESSION))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(120)


def answer(user: int, port: int, what: str = "GET /", more: str = CLOSE) -> str:
    return subprocess.run([sys.executable, "-c", ASK, str(user), str(port), what, more], capture_output=True, text=True, check=True).stdout


def test_the_owner_is_answered(port):
    assert "yours" in answer(os.getuid(), port)
    assert " 101 " in answer(os.getuid(), port, "GET /talk", SOCKET)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_is_not(port):
    refused = answer(NOBODY, port)
    assert " 403 " in refused
    assert "belongs to another user" in refused
    assert " 403 " in answer(NOBODY, port, "GET /talk", SOCKET)


def test_a_client_that_says_who_it_is_is_not_believed(port):
    """uvicorn takes over what this header says of the client."""
    for said in ("8.8.8.8", "127.0.0.1"):
        refused = answer(os.getuid(), port, more=f"X-Forwarded-For: {said}\r\n{CLOSE}")
        assert " 403 " in refused
        assert "behind a proxy" in refused


@pytest.mark.parametrize("header", gate.PROXY_HEADERS)
def test_no_header_of_a_proxy_is_believed(port, header):
    assert " 403 " in answer(os.getuid(), port, more=f"{header}: for=127.0.0.1\r\n{CLOSE}")


def test_a_kernel_that_does_not_tell(monkeypatch, capsys):
    monkeypatch.setattr("workbench.machines.connections.user_of", lambda client, server: None)
    Gate(Starlette(), Access("owner"))
    assert "only the login token keeps this machine's other users out" in capsys.readouterr().err


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_whose_a_connection_is(family, host):
    with socket.create_server((host, 0), family=family) as listening, socket.create_connection(listening.getsockname()[:2]) as mine:
        assert user_of(mine.getsockname(), listening.getsockname()) == os.getuid()
        assert is_ours(mine.getsockname(), listening.getsockname())
        assert user_of((host, 1), listening.getsockname()) is None
