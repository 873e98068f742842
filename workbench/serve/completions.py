"""Asks a policy endpoint (`workbench serve`) over its OpenAI-compatible HTTP API, on the standard library alone."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from workbench.data.targets import Targets

TIMEOUT_S = 600.0
"""Longest silence of an endpoint that is asked."""
LARGEST = 64 << 20
"""Bytes of an answer that is read at once."""


@dataclass(frozen=True)
class ServedModel:
    """A model of an endpoint. `source` is what it was served from, `step` its checkpoint's, `targets` the attributes that it was trained on."""

    id: str
    source: str
    step: int | None
    targets: Targets | None


@dataclass(frozen=True)
class Delta:
    """The next piece of an answer. The last one has a `finish_reason`."""

    text: str
    finish_reason: Literal["stop", "length"] | None
    token_ids: Sequence[int] = ()


@dataclass(frozen=True)
class Measured:
    """What was measured of an answer, by attribute, and by what: `rule`, or an attribute model's id."""

    attributes: Mapping[str, float]
    measured_by: Mapping[str, str]


class Refused(ValueError):
    """The endpoint refused a request; `status` is the HTTP status, the message the endpoint's own."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status


class Completions:
    """An endpoint at `url` (`http://host:port`); `context` proves who asks one on another machine.

    All calls raise Refused as the endpoint puts it, and ConnectionError where it cannot be reached or breaks off.
    """

    def __init__(self, url: str, token: str, context: ssl.SSLContext | None = None):
        self.url, self._token, self._context = url, token, context

    def models(self) -> list[ServedModel]:
        return [_served(each) for each in self._json("GET", "/v1/models")["data"]]

    def stream(
        self,
        model: str,
        messages: Sequence[Mapping[str, str]],
        *,
        attributes: Mapping[str, float] | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop: Sequence[str] = (),
        connected: Callable[[socket.socket], None] = lambda _: None,
    ) -> Iterator[Delta]:
        """The answer as it is drawn. Closing the iterator cancels the request; while another thread waits in it, shutting down the socket that `connected`
        is given does."""
        body: dict[str, object] = {"model": model, "messages": [dict(each) for each in messages], "max_tokens": max_tokens}
        body |= {"temperature": temperature, "top_p": top_p, "stream": True, "return_token_ids": True}
        optional = {"attributes": attributes and dict(attributes), "seed": seed, "stop": list(stop) or None}
        body |= {name: value for name, value in optional.items() if value is not None}
        connection = self._connection()
        with closing(connection):
            response = self._send(connection, "POST", "/v1/chat/completions", body, connected)
            for event in self._events(response):
                choice = event["choices"][0]
                yield Delta(choice["delta"].get("content") or "", choice["finish_reason"], tuple(choice.get("token_ids") or ()))

    def measure(self, messages: Sequence[Mapping[str, str]]) -> Measured:
        """The attributes of the last message, an assistant's. Raises Refused (404) where the endpoint measures none."""
        given = self._json("POST", "/v1/attributes", {"messages": [dict(each) for each in messages]})
        return Measured(given["attributes"], given["measured_by"])

    def _json(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        connection = self._connection()
        with closing(connection):
            response = self._send(connection, method, path, body)
            try:
                return cast(dict[str, Any], json.loads(response.read(LARGEST)))
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise ConnectionError(f"{self.url}{path}: {type(error).__name__}: {error}") from None

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S, context=self._context)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: object,
        connected: Callable[[socket.socket], None] = lambda _: None,
    ) -> http.client.HTTPResponse:
        headers = {"Authorization": f"Bearer {self._token}", **({"Content-Type": "application/json"} if body is not None else {})}
        try:
            connection.connect()
            connected(connection.sock)
            connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            response = connection.getresponse()
            if response.status == 200:
                return response
            text = response.read(LARGEST)
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionError(f"{self.url}{path}: {type(error).__name__}: {error}") from None
        raise Refused(response.status, _message(response.status, text))

    def _events(self, response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
        """The chunks of a stream of server-sent events, up to `[DONE]`."""
        while True:
            try:
                line = response.readline()
            except (OSError, http.client.HTTPException) as error:
                raise ConnectionError(f"{self.url}: {type(error).__name__}: {error}") from None
            if not line:
                raise ConnectionError(f"{self.url} ended in the middle of an answer")
            if not line.startswith(b"data: "):
                continue
            text = line.removeprefix(b"data: ").strip()
            if text == b"[DONE]":
                return
            event = json.loads(text)
            if "error" in event:
                raise Refused(500, event["error"]["message"])
            yield event


def _served(entry: Mapping[str, Any]) -> ServedModel:
    steering = entry["steering"]
    if steering is None:
        return ServedModel(entry["id"], entry["source"], entry["step"], None)
    scale = {name: steering[name] for name in ("attributes", "lowest", "highest", "layout")}
    file = {"format": 1, "steering": scale, "template_kwargs": {}, "rows": sum(steering["counts"])}
    return ServedModel(
        entry["id"], entry["source"], entry["step"], Targets.parse({**file, "vectors": steering["vectors"], "counts": steering["counts"]})
    )


def _message(status: int, text: bytes) -> str:
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {status}: {text[:200].decode(errors='replace')}"
