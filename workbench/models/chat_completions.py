"""Questions to an OpenAI-compatible chat endpoint (`POST <url>/chat/completions`), some at a time, each until it is answered.

What may pass (no connection, a timeout, HTTP 408, 409, 425, 429 and 5xx, a body of another form) is tried again, later each time. What does not
(no key, no such model) raises at once. A question that is refused for what it is (as 400 for one that is too long) has no reply.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from email.message import Message
from typing import IO

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
PASSING = (408, 409, 425, 429)
FATAL = (401, 403, 404, 405)
_LONGEST_REPLY = 1 << 20
_SHOWN = 200


@dataclass(frozen=True)
class Reply:
    """What the endpoint said to a question: a text, or why it refused it."""

    text: str | None
    refused: str = ""


class _Passing(Exception):
    """The same request may succeed later, after `after_s` at the earliest where the endpoint said so."""

    def __init__(self, message: str, after_s: float = 0.0):
        super().__init__(message)
        self.after_s = after_s


class ChatCompletions:
    """One endpoint and its model. The API key is sent to this URL alone: redirects are refused, and no message names it.

    `trouble` is the newest failure that is tried again, empty while all is well.
    """

    def __init__(self, url: str, model: str, api_key: str | None, reply_tokens: int, timeout_s: float, give_up_after_s: float, concurrency: int):
        self.url, self._model, self._key, self._reply_tokens = url, model, api_key, reply_tokens
        self._timeout_s, self._give_up_after_s = timeout_s, give_up_after_s
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._queue: queue.SimpleQueue[tuple[str, Future[Reply]]] = queue.SimpleQueue()
        self.trouble = ""
        for number in range(concurrency):  # daemons: a run that stops does not wait for a slow endpoint
            threading.Thread(target=self._work, name=f"chat-{number}", daemon=True).start()

    def ask(self, question: str) -> Future[Reply]:
        """The reply's future. It raises ConnectionError where the endpoint cannot be asked so, or not within `give_up_after_s`."""
        future: Future[Reply] = Future()
        self._queue.put((question, future))
        return future

    def _work(self) -> None:
        while True:
            question, future = self._queue.get()
            try:
                future.set_result(self._until_answered(question))
            except ConnectionError as error:
                future.set_exception(error)

    def _until_answered(self, question: str, sleep: Callable[[float], None] = time.sleep) -> Reply:
        failed_at: float | None = None
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                reply = self._once(question)
                self.trouble = ""
                return reply
            except _Passing as error:
                now = time.monotonic()
                failed_at = failed_at or now
                self.trouble = str(error)
                if now - failed_at >= self._give_up_after_s:
                    raise ConnectionError(
                        f"{self.url}: no reply within {self._give_up_after_s:g} s of the first failure; the last: {error}"
                    ) from None
                sleep(max(pause_s, min(error.after_s, LONGEST_PAUSE_S)))
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _once(self, question: str) -> Reply:
        wanted = {"model": self._model, "messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": self._reply_tokens}
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {self._key}"} if self._key else {})}
        request = urllib.request.Request(f"{self.url}/chat/completions", json.dumps(wanted).encode(), headers)
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                body = answer.read(_LONGEST_REPLY)
        except urllib.error.HTTPError as error:
            return self._refused(error)
        except (OSError, http.client.HTTPException) as error:
            raise _Passing(f"{type(error).__name__}: {error}"[:_SHOWN]) from None
        return Reply(_content(body))

    def _refused(self, error: urllib.error.HTTPError) -> Reply:
        with contextlib.closing(error):
            try:
                said = error.read(_SHOWN).decode(errors="replace").strip()
            except (OSError, http.client.HTTPException):
                said = ""
        what = f"HTTP {error.code} {error.reason}" + (f": {said}" if said else "")
        if error.code >= 500 or error.code in PASSING:
            after = (error.headers.get("Retry-After") or "").strip()
            raise _Passing(what, float(after) if after.isdecimal() else 0.0)
        if error.code in FATAL or error.code < 400:
            raise ConnectionError(f"{self.url}/chat/completions with model {self._model!r}: {what}; look at url, url_model and api_key_env")
        return Reply(None, what)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str) -> None:
        return None


def _content(body: bytes) -> str:
    """The reply's text. Raises _Passing where the body is no chat completion."""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise _Passing(f"the reply is no chat completion: {body[:_SHOWN].decode(errors='replace')!r}") from None
    return content if isinstance(content, str) else ""
