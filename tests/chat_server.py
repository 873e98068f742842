"""A chat endpoint in OpenAI's form on 127.0.0.1 that replies by a rule: `with answering(rule) as server`."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ChatServer:
    """Every request's body and headers in `asked`; while `failures` has an entry, it is sent instead of a reply: (status, body, headers)."""

    rule: Callable[[str], str | None]
    failures: list[tuple[int, bytes, dict[str, str]]] = field(default_factory=list)
    asked: list[tuple[dict[str, Any], dict[str, str]]] = field(default_factory=list)
    url: str = ""

    @property
    def questions(self) -> list[str]:
        return [body["messages"][0]["content"] for body, _ in self.asked]


@contextlib.contextmanager
def answering(rule: Callable[[str], str | None], failures: list[tuple[int, bytes, dict[str, str]]] | None = None) -> Iterator[ChatServer]:
    here = ChatServer(rule, failures if failures is not None else [])
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                here.asked.append((body, dict(self.headers)))
                failure = here.failures.pop(0) if here.failures else None
            right = self.path == "/v1/chat/completions" and body["messages"][0]["role"] == "user"
            status, said, headers = failure or (200 if right else 404, self._completion(body), {})
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(said)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(said)

        def _completion(self, body: dict[str, Any]) -> bytes:
            message = {"role": "assistant", "content": here.rule(body["messages"][0]["content"])}
            return json.dumps({"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield here
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
