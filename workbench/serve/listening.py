"""Where the HTTP side of an endpoint listens: on loopback, or by mutual TLS on the node's own address; and the file that says where."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from uvicorn.config import Config

from workbench.backends import _tls, scratch
from workbench.rundir import opening
from workbench.rundir.files import write_atomic
from workbench.serve import discovery
from workbench.serve.gate import gate
from workbench.serve.guard import Guard, OwnersConnection

START_S = 30.0
END_S = 2.0
"""How long requests under way have when the endpoint ends."""


@contextmanager
def listening(run_dir: Path, host: str, port: int, max_request_bytes: int, make: Callable[[], Starlette]) -> Iterator[str]:
    """The application that `make` makes (in the event loop's thread), behind the guard, announced in `endpoints/http.json` while it lasts. Yields its URL.

    Raises:
        OSError: the port is taken.
    """
    token = secrets.token_urlsafe(32)
    withdraw(run_dir)
    with _socket(run_dir, host, port) as (heard, url, hosts):
        server = uvicorn.Server(_config(make, token, hosts, max_request_bytes))
        thread = threading.Thread(target=asyncio.run, args=(server.serve([heard]),), name="http", daemon=True)
        thread.start()
        _wait(server, thread)
        announce(run_dir, url, token)
        try:
            yield url
        finally:
            withdraw(run_dir)
            server.should_exit = True
            thread.join(END_S + 5.0)


def announce(run_dir: Path, url: str, token: str) -> None:
    opening.make_folder(run_dir / "endpoints")
    write_atomic(run_dir / "endpoints" / discovery.HTTP_FILE, json.dumps({"url": url, "token": token}))


def withdraw(run_dir: Path) -> None:
    opening.make_folder(run_dir / "endpoints")
    opening.unlink(run_dir / "endpoints" / discovery.HTTP_FILE)


def on_this_machine(host: str) -> bool:
    """Whether only programs of this machine reach the address."""
    return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback


@contextmanager
def _socket(run_dir: Path, host: str, port: int) -> Iterator[tuple[socket.socket, str, Sequence[str]]]:
    """The socket that HTTP is answered on, the URL, and the hosts that requests may name."""
    if on_this_machine(host):
        with socket.create_server(("127.0.0.1", port)) as heard:
            number = heard.getsockname()[1]
            yield heard, f"http://127.0.0.1:{number}", (f"127.0.0.1:{number}", f"localhost:{number}")
        return
    context = _tls.context(discovery.certificate(run_dir, discovery.HTTP), ssl.Purpose.CLIENT_AUTH)
    with scratch.folder() as folder, socket.socket(socket.AF_UNIX) as heard:
        heard.bind(str(folder / "http.sock"))
        heard.listen(128)
        with gate(host, folder / "http.sock", context, port) as number:
            yield heard, f"https://{host}:{number}", (f"{host}:{number}",)


def _config(make: Callable[[], Starlette], token: str, hosts: Sequence[str], max_request_bytes: int) -> Config:
    guarded = Guard(make(), token, hosts, max_request_bytes)
    return Config(
        guarded,
        http=OwnersConnection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(END_S),
    )


def _wait(server: uvicorn.Server, thread: threading.Thread) -> None:
    waited = threading.Event()
    for _ in range(int(START_S / 0.02)):
        if server.started:
            return
        if not thread.is_alive():
            break
        waited.wait(0.02)
    raise RuntimeError("the HTTP server did not start")
