"""What processes listen on, also those in other network namespaces, which psutil does not see."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from tests.trust.intruder import Intruder
from workbench import api

LISTEN = "0A"
REFUSED = ("", "ConnectionResetError", "BrokenPipeError", "SSLError", "SSLEOFError", "TimeoutError")
"""What tells a stranger nothing."""
KNOCK = """
import concurrent.futures, json, socket, ssl, sys
held = []
def knock(place):
    told = {}
    for way in ("silent", "bytes", "http", "tls"):
        try:
            peer = socket.create_connection(place, 0.5)
        except OSError as error:
            told[way] = type(error).__name__
            break
        held.append(peer)
        try:
            if way == "bytes":
                peer.sendall(bytes(64))
            if way == "http":
                peer.sendall(b"GET /info/main/workers.html HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
            if way == "tls":
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                peer = context.wrap_socket(peer)
                held.append(peer)
                peer.sendall(b"x" * 64)
            peer.settimeout(0.5)
            told[way] = peer.recv(100).decode("latin1") if way != "silent" else ""
        except OSError as error:
            told[way] = type(error).__name__
    return json.dumps([place[1], told])
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    for line in pool.map(knock, map(tuple, json.loads(sys.argv[1]))):
        print(line, flush=True)
print("done", flush=True)
sys.stdin.read()
"""
"""A program that tries each of the places in its argument in four ways, says what it was told, and holds its connections."""


def family(run: api.Run) -> list[psutil.Process]:
    """The driver of a local run, and all that it started."""
    job = run.status.job
    assert job is not None
    driver = psutil.Process(int(job["id"]))
    return [driver, *driver.children(recursive=True)]


@contextmanager
def knocked(intruder: Intruder, run: api.Run) -> Iterator[dict[tuple[str, int], psutil.Process]]:
    """The places where a local run listens. Another user tries each and is told nothing, and holds the connections as long as the block lasts.

    dask's answer an alert of TLS at most; a rank's are gloo's, which take nobody once the groups are formed.
    """
    places = listening(family(run))
    assert {host for host, _ in places} == {"127.0.0.1"}
    knocking = intruder.start(KNOCK, json.dumps(sorted(places)))
    try:
        assert knocking.stdout is not None
        told = dict(json.loads(line) for line in iter(knocking.stdout.readline, "done\n"))
        for (host, port), process in places.items():
            if "RANK" in process.environ():
                assert set(told[port].values()) == {"TimeoutError"}, (host, port, process.cmdline(), told[port])
            else:
                assert all(answer in REFUSED or answer.startswith("\x15\x03") for answer in told[port].values()), told[port]
        yield places
    finally:
        knocking.kill()
        knocking.wait()


def listening(processes: Iterable[psutil.Process]) -> dict[tuple[str, int], psutil.Process]:
    """The TCP sockets that the processes listen on, by address and port."""
    found = {}
    for process in processes:
        folder = Path(f"/proc/{process.pid}")
        inodes = set()
        for entry in (folder / "fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                inodes.add(str(entry.readlink()))
        for table in ("tcp", "tcp6"):
            path = folder / "net" / table
            for line in path.read_text().splitlines()[1:] if path.exists() else ():
                fields = line.split()
                if fields[3] == LISTEN and f"socket:[{fields[9]}]" in inodes:
                    address, _, port = fields[1].partition(":")
                    found[_address(address), int(port, 16)] = process
    return found


def _address(text: str) -> str:
    """As the kernel prints it: words of 32 bits, each in the machine's own order."""
    words = [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]
    return str(ipaddress.ip_address(b"".join(socket.htonl(word).to_bytes(4, "big") for word in words)))
