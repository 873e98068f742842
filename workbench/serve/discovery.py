"""How a server is found: `endpoints/<role>.json` in the run directory, and the key beside it that only the owner can read."""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from workbench.backends import _tls
from workbench.rundir import opening
from workbench.rundir.files import read_json, write_atomic
from workbench.rundir.opening import Unreadable
from workbench.serve import addresses

HTTP, HTTP_FILE = "http", "http.json"
"""A policy endpoint's HTTP side, and its file in `endpoints/`: {"url", "token"}."""


@dataclass(frozen=True)
class Address:
    """Where a server listens, and who it is. `key_file` lies beside the file that says so."""

    url: str
    host: str
    pid: int
    started: float
    key_file: str


def publish(run_dir: Path, role: str, url: str, key: bytes) -> None:
    """Announce this process's server. The key is there, mode 0600, before the address is."""
    folder = run_dir / "endpoints"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    write_atomic(folder / f"{role}.key", base64.b64encode(key).decode())
    address = Address(url, socket.gethostname(), os.getpid(), time.time(), f"{role}.key")
    write_atomic(folder / f"{role}.json", json.dumps(asdict(address)))


def withdraw(run_dir: Path, role: str) -> None:
    (run_dir / "endpoints" / f"{role}.json").unlink(missing_ok=True)


def find(run_dir: Path, role: str) -> tuple[Address, bytes]:
    """The address and the key. Raises FileNotFoundError while there is no such server, and Unreadable for files that are damaged or another's."""
    path = run_dir / "endpoints" / f"{role}.json"
    address = read(path)
    try:
        return address, base64.b64decode(opening.read_text(path.with_name(address.key_file)), validate=True)
    except ValueError:
        raise Unreadable(path.with_name(address.key_file), "no key of a server") from None


def read(path: Path) -> Address:
    """The address in a file `<role>.json`. Raises FileNotFoundError and Unreadable."""
    said = read_json(path)
    typed = said.keys() == _ADDRESS.keys() and all(isinstance(said[name], kind) for name, kind in _ADDRESS.items())
    if not typed or said["key_file"] != f"{path.stem}.key":
        raise Unreadable(path, f"no address of the server {path.stem}")
    return Address(**said)


def read_http(path: Path) -> tuple[str, str]:
    """The URL and the token in a policy endpoint's file. Raises FileNotFoundError and Unreadable."""
    said = read_json(path)
    if said.keys() != {"url", "token"} or not all(isinstance(value, str) for value in said.values()):
        raise Unreadable(path, "no address of an endpoint")
    return said["url"], said["token"]


_ADDRESS = {"url": str, "host": str, "pid": int, "started": float, "key_file": str}


def ready(run_dir: Path, role: str, address: Address, timeout_s: float = 2.0) -> bool:
    """Whether Triton at this address says that it is ready."""
    return addresses.ready(address.url, context(run_dir, role, address.url), timeout_s)


def certificate(run_dir: Path, role: str) -> Path:
    """The folder of the certificate that a server reached by TLS and its clients show each other; the server makes it."""
    return run_dir / "endpoints" / f"{role}.tls"


def context(run_dir: Path, role: str, url: str) -> ssl.SSLContext | None:
    """What a connection to another machine proves itself with. None where it goes to a UNIX socket."""
    return None if url.startswith("unix:") else _tls.context(certificate(run_dir, role), ssl.Purpose.SERVER_AUTH)
