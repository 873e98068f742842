"""Requests over a real PyTriton: what it answers, what it refuses and how it says so, and what happens when it dies."""

from __future__ import annotations

import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from workbench.serve import discovery
from workbench.serve.client import Client, Unreachable
from workbench.serve.endpoint import BadRequest
from workbench.serve.server import ready

TOKENS, LENGTHS = np.arange(12, dtype=np.int32).reshape(3, 4), np.array([4, 4, 2], np.int32)


def start(run: Path) -> subprocess.Popen:
    with (run / "echo.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "tests.serve.echo", str(run)], stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    while not (run / "endpoints" / "echo.json").exists():
        assert process.poll() is None and time.monotonic() < deadline, (run / "echo.log").read_text()[-3000:]
        time.sleep(0.1)
    return process


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, subprocess.Popen]]:
    run = tmp_path_factory.mktemp("run")
    process = start(run)
    yield run, process
    process.terminate()
    process.wait(30)


@pytest.fixture
def client(served: tuple[Path, subprocess.Popen]) -> Iterator[Client]:
    client = Client(served[0], "echo", patience_s=10)
    yield client
    client.close()


def test_a_request_is_answered_and_counted(client: Client) -> None:
    answer = client.call("echo", tokens=TOKENS, sequence_lengths=LENGTHS).result()
    assert answer["sums"].tolist() == TOKENS.sum(1).tolist()
    assert client.sent["echo"] == TOKENS.nbytes + LENGTHS.nbytes
    assert client.seconds["echo"] > 0


@pytest.mark.parametrize(
    ("endpoint", "arrays", "said"),
    [
        ("echo", {"tokens": TOKENS.astype(np.int64), "sequence_lengths": LENGTHS}, "INT32|dtype|type"),
        ("echo", {"tokens": TOKENS}, "sequence_lengths|inputs"),
        ("echo", {"tokens": TOKENS, "sequence_lengths": LENGTHS, "more": LENGTHS}, "more|inputs"),
        ("echo", {"tokens": TOKENS[:, :, None], "sequence_lengths": LENGTHS}, "shape|dim"),
        ("echo", {"tokens": -TOKENS - 1, "sequence_lengths": LENGTHS}, "between 0 and 99, got -12 to -1"),
        ("echo", {"tokens": TOKENS + 99, "sequence_lengths": LENGTHS}, "between 0 and 99"),
        ("echo", {"tokens": TOKENS, "sequence_lengths": LENGTHS + 1}, "between 1 and the 4 columns"),
        ("echo", {"tokens": TOKENS, "sequence_lengths": LENGTHS[:2]}, "2 entries for 3 rows"),
        ("echo", {"tokens": np.zeros((1, 20), np.int32), "sequence_lengths": np.array([20], np.int32)}, "20 tokens, the longest allowed has 16"),
        ("echo", {"tokens": np.zeros((1 << 10, 1 << 9), np.int32), "sequence_lengths": LENGTHS}, "at most 1,048,576"),
        ("ecko", {"tokens": TOKENS, "sequence_lengths": LENGTHS}, "no endpoint 'ecko'"),
    ],
)
def test_a_bad_request_is_told_and_the_server_lives_on(client: Client, endpoint: str, arrays: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(BadRequest, match=said) as refused:
        client.call(endpoint, **arrays).result()
    assert "Traceback" not in str(refused.value)
    assert client.call("echo", tokens=TOKENS, sequence_lengths=LENGTHS).result()["sums"].tolist() == TOKENS.sum(1).tolist()


def test_without_the_token_nothing_is_answered(served: tuple[Path, subprocess.Popen], client: Client) -> None:
    token = served[0] / "endpoints" / "echo.token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert stat.S_IMODE(token.parent.stat().st_mode) == 0o700
    right = token.read_text()
    token.write_text("wrong")
    try:
        with pytest.raises((BadRequest, Unreachable)):
            client.call("echo", tokens=TOKENS, sequence_lengths=LENGTHS).result()
    finally:
        token.write_text(right)


def test_it_listens_on_loopback_only_and_says_that_it_is_ready(served: tuple[Path, subprocess.Popen]) -> None:
    run, process = served
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    listening = [c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert listening and {address.removeprefix("::ffff:") for address in listening} == {"127.0.0.1"}
    assert ready(discovery.find(run, "echo")[0].url)
    assert not ready("http://127.0.0.1:9")


def test_a_killed_server_is_waited_for_and_triton_takes_its_server_along(tmp_path: Path) -> None:
    first = start(tmp_path)
    client = Client(tmp_path, "echo", patience_s=90)
    before = client.call("slow", seconds=np.array([0], np.float32)).result()["pid"][0]
    asked = client.call("slow", seconds=np.array([2], np.float32))
    time.sleep(1)
    for process in [*psutil.Process(first.pid).children(recursive=True), psutil.Process(first.pid)]:
        process.kill()
    first.wait()
    (tmp_path / "endpoints" / "echo.json").unlink()
    second = start(tmp_path)
    after = asked.result(90)["pid"][0]
    assert (before, after) == (first.pid, second.pid)
    next(c for c in psutil.Process(second.pid).children(recursive=True) if c.name() == "tritonserver").kill()
    assert second.wait(60) != 0
    client.close()
