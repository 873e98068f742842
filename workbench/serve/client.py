"""Asks a server of the run, in the background; goes on asking while it is being restarted."""

from __future__ import annotations

import re
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tenacity

from workbench.serve import discovery
from workbench.serve.endpoint import Arrays, BadRequest
from workbench.serve.server import ready

REQUEST_TIMEOUT_S = 600.0


class Unreachable(RuntimeError):
    """No answer within the client's patience."""


class _TryAgain(Exception):
    """The server is not there (yet, or any more)."""


class Client:
    """Calls of one role's endpoints. `seconds`, `sent` and `received` (bytes) count by endpoint."""

    def __init__(self, run: Path, role: str, patience_s: float = 300.0):
        self._run, self._role, self._patience_s = run, role, patience_s
        self._threads = ThreadPoolExecutor(4, thread_name_prefix=f"ask-{role}")
        self.seconds: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()

    def call(self, endpoint: str, **arrays: np.ndarray) -> Future[Arrays]:
        """The answer's future. A request may reach the server twice, when it dies between doing and answering.

        The future raises BadRequest as the server put it, and Unreachable after `patience_s` without an answer.
        """
        return self._threads.submit(self._call, endpoint, arrays)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _call(self, endpoint: str, arrays: Arrays) -> Arrays:
        started = time.perf_counter()
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TryAgain),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
            stop=tenacity.stop_after_delay(self._patience_s),
        )
        try:
            answer = retrying(self._once, endpoint, arrays)
        except tenacity.RetryError as error:
            why = error.last_attempt.exception()
            logs = self._run / "logs"
            raise Unreachable(f"{endpoint} of the {self._role} server gave no answer in {self._patience_s:.0f} s ({why}); see {logs}") from None
        self.seconds[endpoint] += time.perf_counter() - started  # type: ignore[assignment]
        self.sent[endpoint] += sum(a.nbytes for a in arrays.values())
        self.received[endpoint] += sum(a.nbytes for a in answer.values())
        return answer

    def _once(self, endpoint: str, arrays: Arrays) -> Arrays:
        from geventhttpclient.response import HTTPParseError  # what PyTriton's client lets through when a connection breaks
        from pytriton.client import ModelClient
        from pytriton.client import exceptions as theirs
        from pytriton.triton import TRITON_ACCESS_HEADER

        try:
            address, token = discovery.find(self._run, self._role)
        except FileNotFoundError:
            raise _TryAgain(f"no such server is announced in {self._run / 'endpoints'}") from None
        if not ready(address.url):
            raise _TryAgain(f"{address.url} does not answer")
        if not ready(address.url, endpoint):
            raise BadRequest(f"the {self._role} server has no endpoint {endpoint!r}")
        named: dict[str, Any] = {**arrays, "headers": {TRITON_ACCESS_HEADER: token}}
        timeouts: dict[str, Any] = {"init_timeout_s": REQUEST_TIMEOUT_S, "inference_timeout_s": REQUEST_TIMEOUT_S}
        try:
            with ModelClient(address.url, endpoint, **timeouts) as client:
                return dict(client.infer_sample(**named))
        except (theirs.PyTritonClientInferenceServerError, theirs.PyTritonClientValueError) as error:
            if died := _death(str(error)):
                raise _TryAgain(f"{address.url}: {died}") from None
            raise BadRequest(_plain(str(error))) from None
        except (theirs.PyTritonClientError, HTTPParseError, OSError) as error:
            raise _TryAgain(f"{address.url}: {type(error).__name__}: {_plain(str(error))}") from None


_DEATHS = ("connection", "unavailable", "timed out", "timeout", "shutting down", "not ready", "refused", "disconnected", "zmq", "closed")


def _death(text: str) -> str:
    """What the error says of a server that went away; empty where it speaks of the request."""
    lowered = text.lower()
    return next((word for word in _DEATHS if word in lowered), "")


def _plain(text: str) -> str:
    """The message alone, without what the libraries wrap around it: a refusal's own words stand after the name of its exception."""
    own = re.findall(r"PyTritonInvalidOperationError: ?(.+)", text)
    if own:
        return own[-1].strip()[:500]
    head = text.partition("Traceback (most recent call last)")[0].strip()
    return head.partition("Message: ")[2][:500] or head[:500]
