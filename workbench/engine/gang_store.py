"""The gang's store on a rank's side: see `workbench.backends._store`, which says why it is not torch's own."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch.distributed as dist
from torch._C._distributed_c10d import FileStore, HashStore, Store

from workbench.backends import _store, _tls

CONNECT_TIMEOUT_S = 60.0
_kept: list[Store] = []
"""torch keeps the C++ half of a store alone; without the other its calls end nowhere."""


def find(world_size: int) -> Store:
    """The store that the node's agent named in the environment; a rank that is alone has one of its own.

    Raises:
        ValueError: there are other ranks, and no store is named.
    """
    if world_size == 1:
        return HashStore()
    address = os.environ.get(_store.STORE, "")
    if address.startswith(_store.TLS):
        _kept.append(TlsStore(address, Path(os.environ[_store.CREDENTIALS])))
        return _kept[-1]
    if address:
        return FileStore(address.removeprefix(_store.FILE), world_size)
    raise ValueError(f"WORLD_SIZE is {world_size} but {_store.STORE} names no store; set it to {_store.FILE}PATH in a folder of your own")


class TlsStore(Store):
    """A store over TLS. A request that waits keeps its connection to itself: other threads take or make another."""

    timeout: datetime.timedelta  # the base class's property, which its stub lacks

    def __init__(self, address: str, credentials: Path):
        super().__init__()
        host, _, port = address.removeprefix(_store.TLS).rpartition(":")
        self._address, self._credentials, self._address_port = address, credentials, (host, int(port))
        self._context = _context(credentials)
        self._idle: list[ssl.SSLSocket] = []
        self._lock = threading.Lock()

    def clone(self) -> TlsStore:
        _kept.append(TlsStore(self._address, self._credentials))
        return cast(TlsStore, _kept[-1])

    def set(self, key: str, value: str | bytes) -> None:
        self._ask(b"set", key.encode(), _bytes(value))

    def get(self, key: str) -> bytes:
        return self._wait([key], self.timeout)[0]

    def add(self, key: str, value: int) -> int:
        return int(self._ask(b"add", key.encode(), b"%d" % value)[0])

    def append(self, key: str, value: str | bytes) -> None:
        self._ask(b"append", key.encode(), _bytes(value))

    def compare_set(self, key: str, expected_value: str | bytes, desired_value: str | bytes) -> bytes:
        return self._ask(b"compare_set", key.encode(), _bytes(expected_value), _bytes(desired_value))[0]

    def check(self, keys: list[str]) -> bool:
        return self._ask(b"check", *(key.encode() for key in keys))[0] == b"1"

    def delete_key(self, key: str) -> bool:
        return self._ask(b"delete", key.encode())[0] == b"1"

    def num_keys(self) -> int:
        return int(self._ask(b"count")[0])

    deleteKey, getNumKeys = delete_key, num_keys  # as C++ calls them

    def wait(self, keys: list[str], timeout: datetime.timedelta | None = None) -> None:
        self._wait(keys, self.timeout if timeout is None else timeout)

    def _wait(self, keys: Sequence[str], timeout: datetime.timedelta) -> list[bytes]:
        return self._ask(b"wait", b"%f" % timeout.total_seconds(), *(key.encode() for key in keys))

    def _ask(self, *fields: bytes) -> list[bytes]:
        """The answer to a request.

        Raises:
            DistStoreError: keys that are waited for did not come in time.
            OSError: the first node's agent is no more, or is another's.
        """
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        connection = connection or self._connect()
        connection.sendall(_store.packed(fields))
        state, *answer = _store.unpacked(_read(connection, struct.unpack(">I", _read(connection, 4))[0]))
        with self._lock:
            self._idle.append(connection)
        if state == _store.LATE:
            raise dist.DistStoreError(f"waited in vain for {', '.join(key.decode(errors='replace') for key in answer[:3])} in the gang's store")
        return answer

    def _connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(self._address_port, timeout=CONNECT_TIMEOUT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._context.wrap_socket(plain)
        connection.settimeout(None)
        return connection


def _context(credentials: Path) -> ssl.SSLContext:
    """Both ends show the run's certificate, which is its own authority; its name says nothing."""
    certificate = credentials / _tls.CERTIFICATE
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=certificate.read_text())
    context.load_cert_chain(certificate, credentials / _tls.KEY)
    return context


def _read(connection: ssl.SSLSocket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(length - len(parts))
        if not part:
            raise ConnectionError("the gang's store was closed: the agent of its first node has ended")
        parts += part
    return bytes(parts)


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
