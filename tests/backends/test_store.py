"""The store in which a gang's ranks meet: over TLS, and what a killed process leaves of its folder."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

from workbench.backends import _store, _tls
from workbench.engine import gang_store
from workbench.engine.gang_store import TlsStore


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    key = (str(tmp_path), "actor", 1)
    yield _store.open_store(key, "127.0.0.1", False, _tls.security(tmp_path / "run"))
    _store.close_store(key)


@pytest.fixture
def store(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dist.Store]:
    with _store.environment(address, _tls.security(tmp_path / "run")) as told:
        monkeypatch.setattr("os.environ", {**os.environ, **told})
        yield dist.PrefixStore("gang", gang_store.find(2))


def test_it_does_what_torchs_does(store: dist.Store) -> None:
    store.set("a", b"\x00\xffvalue")
    assert store.get("a") == b"\x00\xffvalue"
    assert [store.add("n", 5), store.add("n", -2), store.get("n")] == [5, 3, b"3"]
    assert store.check(["a", "n"]) and not store.check(["a", "b"])
    assert store.compare_set("c", "", "first") == b"first"
    assert store.compare_set("c", "other", "second") == b"first"
    assert store.compare_set("c", "first", "second") == b"second"
    assert store.num_keys() == 3
    assert store.delete_key("a") and not store.delete_key("a")
    with pytest.raises(RuntimeError, match="waited in vain for gang/b"):
        store.wait(["c", "b"], timedelta(seconds=0.05))


def test_a_wait_ends_when_the_last_key_comes_and_holds_up_no_other_thread(store: dist.Store) -> None:
    ended = threading.Event()

    def wait() -> None:
        store.wait(["x", "y"], timedelta(seconds=60))
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    store.set("x", "1")
    assert store.add("n", 1) == 1 and not ended.is_set()
    store.set("y", "1")
    thread.join(60)
    assert ended.is_set()


def test_a_certificate_of_ones_own_and_silent_connections_change_nothing(address: str, store: dist.Store, tmp_path: Path) -> None:
    host, _, port = address.removeprefix("tls://").rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(50)]
    _tls.security(tmp_path / "other")
    with pytest.raises(ssl.SSLError):
        TlsStore(address, tmp_path / "other").add("gang/n", 7)
    without = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    without.check_hostname, without.verify_mode = False, ssl.CERT_NONE
    with pytest.raises(OSError, match=r"(?i)certificate required|reset|broken pipe|eof"), without.wrap_socket(silent[0]) as connection:
        connection.sendall(_store.packed([b"add", b"gang/n", b"7"]))
        assert not connection.recv(100)
        raise ConnectionResetError("closed: EOF")
    assert store.add("n", 1) == 1
    for each in silent:
        each.close()
