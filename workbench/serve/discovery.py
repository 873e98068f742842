"""How a server is found: `endpoints/<role>.json` in the run directory, and the token beside it that only the owner can read."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from workbench.store import write_atomic


@dataclass(frozen=True)
class Address:
    """Where a server listens, and who it is."""

    url: str
    host: str
    pid: int
    started: float


def new_token(run: Path, role: str) -> str:
    """A fresh secret in `endpoints/<role>.token`, mode 0600."""
    folder = run / "endpoints"
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)
    token, partial = secrets.token_urlsafe(32), folder / f".{role}.{os.getpid()}"
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(token)
    partial.replace(folder / f"{role}.token")
    return token


def publish(run: Path, role: str, url: str) -> None:
    address = Address(url, socket.gethostname(), os.getpid(), time.time())
    write_atomic(run / "endpoints" / f"{role}.json", json.dumps(asdict(address)))


def withdraw(run: Path, role: str) -> None:
    (run / "endpoints" / f"{role}.json").unlink(missing_ok=True)


def find(run: Path, role: str) -> tuple[Address, str]:
    """The address and the token. Raises FileNotFoundError while there is no such server."""
    folder = run / "endpoints"
    return Address(**json.loads((folder / f"{role}.json").read_text())), (folder / f"{role}.token").read_text()
