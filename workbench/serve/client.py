"""Asks a server of the run, in the background; keeps asking while it is being restarted."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np
import tenacity

from workbench import metrics as M
from workbench.models.endpoint import SECONDS, Arrays, BadRequest
from workbench.serve import addresses, discovery, sealed, triton
from workbench.serve.server import DENIED, REFUSED

SAME_ERRORS = 3
"""As often an error of the same server process is met before it is believed."""


class Unreachable(RuntimeError):
    """No answer within the client's patience."""


class _TryAgain(Exception):
    """The server is not there (yet, or any more)."""


class Client:
    """Calls of one role's endpoints. `calls`, `seconds`, `bytes_sent` and `bytes_received` count the answered ones by endpoint.

    Of the try that was answered, `server_seconds` were spent in the server (in its queue and at work), `wire_seconds` on the way.

    `patience_s` counts from a call's first failure; `request_s` is the longest that one try may take.
    """

    def __init__(self, run_dir: Path, role: str, patience_s: float = 300.0, request_s: float = 600.0, concurrency: int = 4):
        self._run_dir, self._role, self._patience_s, self._request_s = run_dir, role, patience_s, request_s
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix=f"ask-{role}")
        self._local, self._counting, self._ended = threading.local(), threading.Lock(), threading.Event()
        self.calls: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}
        self.server_seconds: defaultdict[str, float] = defaultdict(float)
        self.wire_seconds: defaultdict[str, float] = defaultdict(float)
        self._reported: dict[str, float] = {}
        self.bytes_sent: Counter[str] = Counter()
        self.bytes_received: Counter[str] = Counter()

    def call(self, endpoint: str, **arrays: np.ndarray) -> Future[Arrays]:
        """The answer's future. A request may reach the server twice, when it dies between doing and answering.

        The future raises:
            BadRequest: as the server put it, at once.
            PermissionError: the server has another key, at once.
            Unreachable: no answer within `patience_s`, or the same server fails at the request again and again.
        """
        return self._threads.submit(self._call, endpoint, arrays)

    def ready(self) -> bool:
        """Whether the server is announced, and Triton says that it is ready."""
        try:
            return discovery.ready(self._run_dir, self._role, discovery.find(self._run_dir, self._role)[0])
        except FileNotFoundError:
            return False

    def traffic(self) -> dict[str, float]:
        """Since it was asked last, by endpoint: seconds on the wire and in the server. Those of different calls may overlap."""
        with self._counting:
            now: dict[str, float] = {}
            for endpoint in self.calls:
                now[M.WIRE_OF(endpoint)] = self.wire_seconds[endpoint]
                now[M.SERVER_OF(endpoint)] = self.server_seconds[endpoint]
            since = {name: value - self._reported.get(name, 0.0) for name, value in now.items()}
            self._reported = now
        return since

    def close(self) -> None:
        """Waiting calls are cancelled, retries end."""
        self._ended.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _call(self, endpoint: str, arrays: Arrays) -> Arrays:
        _check(arrays)
        started = time.monotonic()
        failed_at: list[float] = []
        errors: Counter[discovery.Address] = Counter()

        def out_of_patience(_: tenacity.RetryCallState) -> bool:
            failed_at.append(time.monotonic())
            return self._ended.is_set() or failed_at[-1] - failed_at[0] > self._patience_s or max(errors.values(), default=0) >= SAME_ERRORS

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_TryAgain),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=2.0),
            stop=out_of_patience,
            sleep=self._pause,
        )
        try:
            answer = retrying(self._once, endpoint, arrays, errors)
        except tenacity.RetryError as error:
            raise Unreachable(
                f"{endpoint} of the {self._role} server: no answer in {time.monotonic() - started:.0f} s of {self._patience_s:.0f} s patience; "
                f"{error.last_attempt.exception()}; see {self._run_dir / 'logs'}"
            ) from None
        tried_s, in_server_s = self._local.seconds
        with self._counting:
            self.calls[endpoint] += 1
            self.server_seconds[endpoint] += in_server_s
            self.wire_seconds[endpoint] += max(0.0, tried_s - in_server_s)
            self.seconds[endpoint] = self.seconds.get(endpoint, 0.0) + time.monotonic() - started
            self.bytes_sent[endpoint] += sum(a.nbytes for a in arrays.values())
            self.bytes_received[endpoint] += sum(a.nbytes for a in answer.values())
        return answer

    def _once(self, endpoint: str, arrays: Arrays, errors: Counter[discovery.Address]) -> Arrays:
        """One try. Raises _TryAgain, with the reason, where another may succeed."""
        try:
            address, key = discovery.find(self._run_dir, self._role)
        except FileNotFoundError:
            raise _TryAgain(f"no such server is announced in {self._run_dir / 'endpoints'}") from None
        box, started = sealed.close(key, endpoint, arrays), time.monotonic()
        try:
            status, data = triton.infer(self._connection(address.url), endpoint, box.data)
        except (OSError, HTTPException) as error:
            self._local.url = None
            raise _TryAgain(f"{address.url}: {type(error).__name__}: {error}") from None
        if isinstance(data, str):
            self._local.url = None
            raise self._verdict(endpoint, address, status, data, errors)
        try:
            answer = sealed.unseal(key, endpoint, sealed.Box(data), box.nonce)
        except sealed.NotSealed:
            errors[address] += 1
            raise _TryAgain(f"{address.url}: {endpoint} answered another request, or its answer was damaged on its way") from None
        if REFUSED in answer:
            raise BadRequest(answer[REFUSED][0].decode())
        self._local.seconds = (time.monotonic() - started, float(answer.pop(SECONDS).sum()))
        return answer

    def _verdict(self, endpoint: str, address: discovery.Address, status: int, text: str, errors: Counter[discovery.Address]) -> Exception:
        """What an error's text means for whoever asked."""
        if DENIED in text:
            return PermissionError(f"the {self._role} server at {address.url} does not have the key in {address.key_file}")
        if status == 404 and "is not found" in text:
            return BadRequest(f"the {self._role} server has no endpoint {endpoint!r}")
        errors[address] += status == 500
        brief = text.partition("Traceback (most recent call last)")[0].strip()[:200]
        return _TryAgain(f"{address.url}: status {status}: {brief}")

    def _pause(self, seconds: float) -> None:
        self._ended.wait(seconds)

    def _connection(self, url: str) -> HTTPConnection:
        """This thread's connection, which is kept from call to call."""
        if getattr(self._local, "url", None) != url:
            self._local.connection = addresses.connect(url, self._request_s, discovery.context(self._run_dir, self._role, url))
            self._local.url = url
        return self._local.connection


def _check(arrays: Arrays) -> None:
    """What nobody reads. Raises BadRequest."""
    for name, array in arrays.items():
        if array.size == 0 or array.dtype.kind == "U":
            raise BadRequest(f"{name}: an array with elements, and texts as bytes; got {array.dtype} of shape {array.shape}")
