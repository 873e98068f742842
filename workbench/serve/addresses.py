"""Where a server is reached, and connections to it: a UNIX socket on one machine, mutual TLS between machines. No proxy is asked."""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

READY = "/v2/health/ready"


def unix(path: Path) -> str:
    return f"unix:{path}"


def tls(host: str, port: int) -> str:
    return f"https://{host}:{port}"


def connect(url: str, timeout_s: float, context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    """A connection that opens with its first request. `context` proves who asks, where the address is one of TLS."""
    if url.startswith("unix:"):
        return _Unix(Path(url.removeprefix("unix:")), timeout_s)
    parts = urlsplit(url)
    assert parts.scheme == "https" and context, f"{url} is reached by TLS with the run's certificate"
    return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout_s, context=context)


def ready(url: str, context: ssl.SSLContext | None = None, timeout_s: float = 2.0) -> bool:
    """Whether Triton at this address says that it is ready."""
    connection = connect(url, timeout_s, context)
    try:
        connection.request("GET", READY)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float):
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
