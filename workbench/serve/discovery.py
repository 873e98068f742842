"""How a server is found: `endpoints/<role>.json` in the run directory, and the token beside it that only the owner can read."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from workbench.rundir import opening
from workbench.rundir.files import read_json, write_atomic
from workbench.rundir.opening import Unreadable

TOKEN_HEADER = "workbench-token"


@dataclass(frozen=True)
class Address:
    """Where a server listens, and who it is. `token_file` lies beside the file that says so."""

    url: str
    host: str
    pid: int
    started: float
    token_file: str


def publish(run_dir: Path, role: str, url: str, token: str) -> None:
    """Announce this process's server. The token is there, mode 0600, before the address is."""
    folder = run_dir / "endpoints"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    partial = folder / f".{role}.token.{os.getpid()}"
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token)
    partial.replace(folder / f"{role}.token")
    address = Address(url, socket.gethostname(), os.getpid(), time.time(), f"{role}.token")
    write_atomic(folder / f"{role}.json", json.dumps(asdict(address)))


def withdraw(run_dir: Path, role: str) -> None:
    (run_dir / "endpoints" / f"{role}.json").unlink(missing_ok=True)


def find(run_dir: Path, role: str) -> tuple[Address, str]:
    """The address and the token. Raises FileNotFoundError while there is no such server, and Unreadable for files that are damaged or another's."""
    path = run_dir / "endpoints" / f"{role}.json"
    address = read(path)
    return address, opening.read_text(path.with_name(address.token_file))


def read(path: Path) -> Address:
    """The address in a file `<role>.json`. Raises FileNotFoundError and Unreadable."""
    said = read_json(path)
    typed = said.keys() == _ADDRESS.keys() and all(isinstance(said[name], kind) for name, kind in _ADDRESS.items())
    if not typed or said["token_file"] != f"{path.stem}.token":
        raise Unreadable(path, f"no address of the server {path.stem}")
    return Address(**said)


_ADDRESS = {"url": str, "host": str, "pid": int, "started": float, "token_file": str}


def gate(token: str) -> str:
    """What Triton itself asks for. It stands on tritonserver's command line, which every user of the host can read: so it is not the token."""
    return hashlib.sha256(token.encode()).hexdigest()


def ready(url: str, timeout_s: float = 2.0) -> bool:
    """Whether Triton at this address says that it is ready. No proxy is asked."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("GET", "/v2/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
