"""Raw requests to the app, from any user: what the headers say is up to the one who asks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from tests.trust.intruder import PYTHON, Intruder

SOCKET = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
STREAM = "/_stcore/stream"
PROGRAM = """
import json, socket, sys
port, asked = json.loads(sys.argv[1])
answers = []
for method, path, headers in asked:
    with socket.create_connection(("127.0.0.1", port), 60) as end:
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        end.sendall("\\r\\n".join([*lines, "", ""]).encode())
        answer = b""
        while part := end.recv(65536):
            answer += part
            if b"101 Switching" in answer:
                break
    head, _, body = answer.decode(errors="replace").partition("\\r\\n\\r\\n")
    answers.append([int(head.split(" ")[1]), head, body])
print(json.dumps(answers))
"""


@dataclass(frozen=True)
class Answer:
    status: int
    head: str
    body: str


def get(path: str, port: int, method: str = "GET", **headers: str) -> tuple[str, str, dict[str, str]]:
    """A request; `_` in a header's name stands for `-`."""
    return method, path, {"Host": f"127.0.0.1:{port}", "Connection": "close", **{name.replace("_", "-"): value for name, value in headers.items()}}


def socket(port: int, **headers: str) -> tuple[str, str, dict[str, str]]:
    """The opening of Streamlit's WebSocket."""
    method, path, sent = get(STREAM, port, **headers)
    return method, path, {**sent, **SOCKET}


def ask(port: int, requests: Sequence[tuple[str, str, dict[str, str]]], as_user: Intruder | None = None) -> list[Answer]:
    """What is answered, one by one: to another user, or to this one."""
    words = json.dumps([port, requests])
    if as_user:
        done = as_user.python(PROGRAM, words)
    else:
        done = subprocess.run([str(PYTHON), "-c", PROGRAM, words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [Answer(*each) for each in json.loads(done.stdout)]
