"""What a second user of the machine can do to a run's servers: they have no port, no readable byte, and nothing that loads code."""

from __future__ import annotations

import http.client
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.serve.echo_server import family, start
from tests.trust.intruder import SEARCH, Intruder
from tests.waiting import until
from workbench.backends import _tls, scratch
from workbench.serve import addresses, discovery, gate, triton
from workbench.serve.client import Client

Served = tuple[Path, subprocess.Popen]

KNOCK = """
import socket, ssl, sys
host, port, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with socket.create_connection((host, port), 60) as end:
    if how == "tls":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        end = context.wrap_socket(end)
    end.sendall(b"GET /v2/health/ready HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(end.recv(4096))
"""
CROWD = """
import socket, sys
ends = [socket.create_connection((sys.argv[1], int(sys.argv[2])), 60) for _ in range(int(sys.argv[3]))]
print("there", flush=True)
sys.stdin.read()
"""


def say(client: Client, text: str) -> str:
    (answer,) = client.call("texts", texts=np.array([text.encode()])).result(120)["upper"]
    return answer.decode()


def folder_of(run: Path) -> Path:
    return Path(discovery.find(run, "echo")[0].url.removeprefix("unix:")).parent


def test_nothing_listens_but_a_socket_of_the_owners(served: Served, intruder: Intruder) -> None:
    assert [c for process in family(served[1]) for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    path = folder_of(served[0]) / "http.sock"
    connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    assert path.is_socket()
    assert "PermissionError" in intruder.python(connect, str(path)).stderr
    assert not intruder.reads(path.parent)


def test_no_secret_stands_in_what_others_can_read(served: Served, intruder: Intruder) -> None:
    """Arguments are open to all, and so is Triton's shared memory: the one has no key in it, the other only sealed bytes."""
    key = (served[0] / "endpoints" / "echo.key").read_text()
    processes = family(served[1])
    arguments = intruder.run("cat", *(f"/proc/{process.pid}/cmdline" for process in processes)).stdout
    assert "tritonserver" in arguments and key not in arguments
    assert not any(intruder.reads(Path(f"/proc/{process.pid}/environ")) for process in processes)
    assert not intruder.reads(served[0] / "endpoints" / "echo.key")


def test_no_prompt_is_read_in_shared_memory(served: Served, client: Client, intruder: Intruder) -> None:
    word = secrets.token_hex(40)
    assert say(client, word) == word.upper()
    read, found = intruder.python(SEARCH, folder_of(served[0]).name, word).stdout.split()
    assert int(read) > 0, "Triton's shared memory is open to all: if that has changed, say so here"
    assert found == "0"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/texts/load"),
        ("POST", "/v2/repository/models/texts/unload"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/mine/register"),
        ("POST", "/v2/cudasharedmemory/region/mine/register"),
        ("GET", "/v2/models/stats"),
        ("GET", "/v2/models/texts/stats"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/trace/setting"),
        ("POST", "/v2/models/texts/trace/setting"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
    ],
)
@pytest.mark.parametrize("header", ["", "no:request:has", "no"])
def test_what_triton_offers_besides_is_off_for_everybody(served: Served, method: str, path: str, header: str) -> None:
    connection = addresses.connect(discovery.find(served[0], "echo")[0].url, 60)
    assert isinstance(connection, http.client.HTTPConnection)
    connection.connect()
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Length: 2", *([f"{header}: this"] if header else []), "", "{}"]
    connection.sock.sendall("\r\n".join(lines).encode())
    assert connection.sock.recv(4096).startswith(b"HTTP/1.1 403 ")


def test_a_request_without_the_key_is_not_computed(served: Served, client: Client) -> None:
    """Also over the owner's own socket: health and what the models are called are all there is to know."""
    connection = addresses.connect(discovery.find(served[0], "echo")[0].url, 60)
    status, message = triton.infer(connection, "slow", np.zeros(100, np.uint8))
    assert (status, "not sealed with the key" in str(message)) == (500, True)
    assert say(client, "a") == "A"


@pytest.fixture
def gated(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port at which machines of a cluster would find the server."""
    monkeypatch.setattr(gate, "HANDSHAKE_S", 2.0)
    context = _tls.context(discovery.certificate(served[0], "echo"), ssl.Purpose.CLIENT_AUTH)
    with gate.gate("127.0.0.1", folder_of(served[0]) / "http.sock", context) as port:
        yield port


@pytest.fixture
def from_afar(served: Served, gated: int, tmp_path: Path) -> Iterator[Client]:
    """A client that finds the server at that port."""
    run = tmp_path / "afar"
    run.mkdir()
    (run / "endpoints").mkdir(mode=0o700)
    shutil.copytree(discovery.certificate(served[0], "echo"), discovery.certificate(run, "echo"))
    discovery.publish(run, "echo", addresses.tls("127.0.0.1", gated), discovery.find(served[0], "echo")[1])
    client = Client(run, "echo", patience_s=120)
    yield client
    client.close()


@pytest.mark.parametrize("how", ["plain", "tls"])
def test_between_machines_only_the_runs_own_certificate_is_answered(from_afar: Client, gated: int, intruder: Intruder, how: str) -> None:
    assert from_afar.ready()
    assert say(from_afar, "over the network") == "OVER THE NETWORK"
    asked = intruder.python(KNOCK, "127.0.0.1", str(gated), how)
    assert "HTTP" not in asked.stdout
    assert "b''" in asked.stdout or "ssl.SSL" in asked.stderr or "ConnectionReset" in asked.stderr


def test_a_crowd_that_says_nothing_keeps_nobody_out(from_afar: Client, gated: int, intruder: Intruder) -> None:
    crowd = intruder.start(CROWD, "127.0.0.1", str(gated), str(2 * gate.HANDSHAKES))
    assert crowd.stdout and crowd.stdout.readline() == "there\n"
    assert say(from_afar, "through") == "THROUGH"
    crowd.communicate("")


def test_a_server_that_is_killed_leaves_nothing(served: Served, client: Client, tmp_path: Path, intruder: Intruder) -> None:
    """Its folder, Triton's shared memory and PyTriton's go when the next one looks; what others have named alike stays, and stops nobody."""
    run = tmp_path / "killed"
    run.mkdir()
    process = start(run)
    mine = Client(run, "echo", patience_s=60)
    assert say(mine, "once") == "ONCE"
    mine.close()
    left = folder_of(run)
    shared = [*scratch.SHM.glob(f"{left.name}*"), *(scratch.SHM / name for name in (left / scratch.SHARED_MEMORY).read_text().split())]
    assert len(shared) >= 2 and all(path.exists() for path in shared)
    trap = scratch._root() / f"workbench-{os.getuid()}-{secrets.token_hex(6)}"
    intruder.run("ln", "-s", str(run), str(trap))
    for each in family(process):
        each.send_signal(signal.SIGKILL)
    process.wait()
    started = [*family_of(left)]
    until(lambda: not any(each.is_running() for each in started))
    assert left in scratch.sweep()
    assert not left.exists() and not any(path.exists() for path in shared)
    assert trap.is_symlink() and (run / "echo.log").exists()
    trap.unlink()
    assert folder_of(served[0]).exists() and say(client, "still here") == "STILL HERE"


def family_of(folder: Path) -> Iterator[psutil.Process]:
    """What Triton has started for this folder, in whatever session."""
    for process in psutil.process_iter(["cmdline"]):
        if any(folder.name in word for word in process.info["cmdline"] or ()):
            yield process


def test_pytriton_keeps_no_copy_of_itself_in_the_cache(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    code = "import sys; from pathlib import Path; from tests.serve.echo_server import end, start; end(start(Path(sys.argv[1])))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, check=True)
    assert not list(tmp_path.rglob("tritonserver"))
