"""Where the ranks of a gang meet: the key-value store through which torch finds their addresses and hands out work.

torch's own network store takes orders from whoever connects, and lists its keys to them. So the ranks of one host share a file in a folder
that is closed to others, and no socket at all; those of several hosts ask the first node's agent, over TLS, for which both ends need the
run's certificate.
"""

from __future__ import annotations

import asyncio
import ssl
import struct
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.backends import _tls, scratch

if TYPE_CHECKING:
    from distributed import Security

STORE, CREDENTIALS = "WORKBENCH_STORE", "WORKBENCH_STORE_CREDENTIALS"
"""In a rank's environment: the store's address, and for one over TLS the private folder with certificate and key."""
FILE, TLS = "file:", "tls://"
HANDSHAKE_TIMEOUT_S = 20.0
LARGEST = 1 << 26  # bytes of a request
OK, LATE = b"ok", b"late"

Key = tuple[str, str, int]
"""Run directory, role and attempt."""

_open: dict[Key, Callable[[], None]] = {}


def open_store(key: Key, host: str, one_host: bool, security: Security) -> str:
    """Runs in the agent of the gang's first node. Returns the store's address; it lasts until `close_store`, or as long as this process."""
    close_store(key)
    with ExitStack() as stack:
        if one_host:
            address = f"{FILE}{stack.enter_context(scratch.folder()) / 'store'}"
        else:
            server = Server(host, security.get_listen_args("worker")["ssl_context"])
            stack.callback(server.close)
            address = f"{TLS}{server.address}"
        _open[key] = stack.pop_all().close
    return address


def close_store(key: Key) -> None:
    """Runs in the same process, once the gang's ranks have ended."""
    if close := _open.pop(key, None):
        close()


@contextmanager
def environment(address: str, security: Security) -> Iterator[Mapping[str, str]]:
    """What a node's ranks know of the store, while they run."""
    if not address.startswith(TLS):
        yield {STORE: address}
        return
    with scratch.folder() as folder:
        parts = security.get_tls_config_for_role("worker")
        for name, part in ((_tls.CERTIFICATE, parts["cert"]), (_tls.KEY, parts["key"])):
            _tls.write_private(folder / name, part.encode() if "\n" in part else Path(part).read_bytes())
        yield {STORE: address, CREDENTIALS: str(folder)}


def packed(fields: Sequence[bytes]) -> bytes:
    """Fields as they are sent: the length of all, then each with its own, as 32-bit numbers in network order."""
    body = b"".join(struct.pack(">I", len(field)) + field for field in fields)
    return struct.pack(">I", len(body)) + body


def unpacked(body: bytes) -> list[bytes]:
    """The fields of a body without its length. Raises ValueError for what `packed` does not make."""
    fields, at = [], 0
    while at < len(body):
        if at + 4 > len(body) or at + 4 + (length := struct.unpack_from(">I", body, at)[0]) > len(body):
            raise ValueError("a field ends beyond its message")
        fields.append(body[at + 4 : at + 4 + length])
        at += 4 + length
    return fields


class Server:
    """The store over TLS, in a thread of its own. `host` is the address of the node's interface that it listens on, and no other."""

    def __init__(self, host: str, context: ssl.SSLContext):
        assert context.verify_mode == ssl.CERT_REQUIRED, "whoever connects must show the run's certificate"
        self._values: dict[bytes, bytes] = {}
        self._waiting: defaultdict[bytes, set[_Wait]] = defaultdict(set)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="store", daemon=True)
        self._thread.start()
        made = self._loop.create_server(lambda: _Peer(self), host, 0, ssl=context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S, backlog=1024)
        self._server = asyncio.run_coroutine_threadsafe(made, self._loop).result()
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname()[:2])

    def close(self) -> None:
        def stop() -> None:
            self._server.close()
            self._loop.stop()

        self._loop.call_soon_threadsafe(stop)
        self._thread.join()

    def answer(self, peer: _Peer, fields: Sequence[bytes]) -> None:
        """Carry out one request. Raises ValueError for what is none, KeyError for an unknown operation."""
        operation, *rest = fields
        if operation == b"wait":
            timeout_s, *keys = rest
            _Wait(self, peer, keys, float(timeout_s))
        else:
            peer.send(OK, OPERATIONS[operation](self, *rest))

    def _put(self, key: bytes, value: bytes) -> bytes:
        self._values[key] = value
        for wait in self._waiting.pop(key, set()):
            wait.came(key)
        return value

    def _add(self, key: bytes, amount: bytes) -> bytes:
        return self._put(key, b"%d" % (int(self._values.get(key, b"0")) + int(amount)))

    def _append(self, key: bytes, value: bytes) -> bytes:
        return self._put(key, self._values.get(key, b"") + value)

    def _compare_set(self, key: bytes, expected: bytes, desired: bytes) -> bytes:
        known = self._values.get(key, b"" if not expected else None)
        return self._put(key, desired) if known == expected else self._values.get(key, expected)

    def _check(self, *keys: bytes) -> bytes:
        return b"%d" % all(key in self._values for key in keys)

    def _delete(self, key: bytes) -> bytes:
        return b"%d" % (self._values.pop(key, None) is not None)

    def _count(self) -> bytes:
        return b"%d" % len(self._values)

    def values(self, keys: Sequence[bytes]) -> list[bytes]:
        return [self._values[key] for key in keys]

    def missing(self, keys: Sequence[bytes]) -> set[bytes]:
        return {key for key in keys if key not in self._values}

    def expect(self, key: bytes, wait: _Wait) -> None:
        self._waiting[key].add(wait)

    def forget(self, key: bytes, wait: _Wait) -> None:
        self._waiting[key].discard(wait)

    def later(self, delay_s: float, then: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(delay_s, then)


OPERATIONS: dict[bytes, Callable[..., bytes]] = {
    b"set": Server._put,
    b"add": Server._add,
    b"append": Server._append,
    b"compare_set": Server._compare_set,
    b"check": Server._check,
    b"delete": Server._delete,
    b"count": Server._count,
}


class _Wait:
    """A request that is answered with the keys' values once all are there, or as late when the time is over."""

    def __init__(self, server: Server, peer: _Peer, keys: Sequence[bytes], timeout_s: float):
        self._server, self._peer, self._keys, self._missing = server, peer, keys, server.missing(keys)
        self._timer = None
        if not self._missing:
            peer.send(OK, *server.values(keys))
            return
        self._timer = server.later(timeout_s, self._late)
        for key in self._missing:
            server.expect(key, self)

    def came(self, key: bytes) -> None:
        self._missing.discard(key)
        if not self._missing and self._timer:
            self._timer.cancel()
            self._peer.send(OK, *self._server.values(self._keys))

    def _late(self) -> None:
        for key in self._missing:
            self._server.forget(key, self)
        self._peer.send(LATE, *self._missing)


class _Peer(asyncio.Protocol):
    """One connection, after its handshake."""

    def __init__(self, server: Server):
        self._server, self._buffer = server, bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 4:
            length = struct.unpack_from(">I", self._buffer)[0]
            if length > LARGEST:
                self._transport.abort()
                return
            if len(self._buffer) < 4 + length:
                return
            body = bytes(self._buffer[4 : 4 + length])
            del self._buffer[: 4 + length]
            self._server.answer(self, unpacked(body))

    def send(self, *fields: bytes) -> None:
        self._transport.write(packed(fields))
