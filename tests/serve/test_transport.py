"""Requests over a real PyTriton: what it answers, what it refuses and how it says so, and what happens when it dies."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serve.echo_server import end, family, start
from tests.waiting import until
from workbench.models.endpoint import BadRequest, Endpoint, Field
from workbench.serve import discovery, sealed, triton
from workbench.serve.client import Client, Unreachable, _TryAgain

TOKENS, LENGTHS = np.arange(12, dtype=np.int32).reshape(3, 4), np.array([4, 4, 2], np.int32)
Served = tuple[Path, subprocess.Popen]


def ask(client: Client) -> dict[str, np.ndarray]:
    return client.call("echo", tokens=TOKENS, sequence_lengths=LENGTHS).result(120)


def test_a_request_is_answered_and_counted(client: Client) -> None:
    assert ask(client)["sums"].tolist() == TOKENS.sum(1).tolist()
    assert client.calls["echo"] == 1
    assert client.bytes_sent["echo"] == TOKENS.nbytes + LENGTHS.nbytes
    assert client.bytes_received["echo"] == 3 * 4 + 8
    assert client.seconds["echo"] > 0


def test_texts_of_any_length_come_back(client: Client) -> None:
    answer = client.call("texts", texts=np.array([b"a", "schön".encode(), b""])).result(120)
    assert [text.decode() for text in answer["upper"]] == ["A", "SCHöN", ""]


def test_calls_at_the_same_time_are_answered_each_with_its_own(client: Client) -> None:
    asked = [client.call("echo", tokens=TOKENS + i, sequence_lengths=LENGTHS) for i in range(20)]
    assert [future.result(120)["sums"].tolist() for future in asked] == [(TOKENS + i).sum(1).tolist() for i in range(20)]


def test_a_box_opens_for_what_it_was_closed_for_and_nothing_else() -> None:
    """Another key, purpose or question, or one bit of it changed, and it does not open; what it holds comes back as it was, and cannot be read in it."""
    key, word = sealed.new_key(), b"a prompt of somebody's"
    arrays = {
        "a": np.arange(6, dtype=np.int32).reshape(2, 3)[:, ::-1],
        "one": np.array([7], np.uint8),
        "texts": np.array([[word, b""]], object),
        "wide": np.array([[0.5]]),
    }
    box = sealed.close(key, "echo", arrays, b"question")
    back = sealed.unseal(key, "echo", box, b"question")
    assert {name: (array.dtype, array.tolist()) for name, array in back.items()} == {name: (a.dtype, a.tolist()) for name, a in arrays.items()}
    assert all(array.flags.writeable and array.flags.aligned for array in back.values())
    assert word not in box.data.tobytes()
    damaged = box.data.copy()
    damaged[len(damaged) // 2] ^= 1
    others = [(sealed.new_key(), "echo", box, b"question"), (key, "other", box, b"question"), (key, "echo", box, b"another")]
    for wrong in [*others, (key, "echo", sealed.Box(damaged), b"question"), (key, "echo", sealed.Box(box.data[:20]), b"question")]:
        with pytest.raises(sealed.NotSealed):
            sealed.unseal(*wrong)


def test_an_answer_to_another_request_is_not_taken(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport that hands out the first answer again and again."""
    kept: list = []

    def mixed_up(*asked: Any) -> Any:
        kept.append(infer(*asked))
        return kept[0]

    infer = triton.infer
    monkeypatch.setattr(triton, "infer", mixed_up)
    client._once("echo", {"tokens": TOKENS, "sequence_lengths": LENGTHS}, Counter())
    with pytest.raises(_TryAgain, match="answered another request"):
        client._once("echo", {"tokens": TOKENS, "sequence_lengths": LENGTHS}, Counter())


@pytest.mark.parametrize(
    ("endpoint", "arrays", "said"),
    [
        (
            "echo",
            {"tokens": TOKENS.astype(np.int64), "sequence_lengths": LENGTHS},
            r"^tokens: int32 with 2 axes wanted, got int64 of shape \(3, 4\)$",
        ),
        ("echo", {"tokens": TOKENS}, "^echo wants tokens, sequence_lengths; missing: sequence_lengths$"),
        (
            "echo",
            {"tokens": TOKENS, "sequence_lengths": LENGTHS, "more": LENGTHS},
            "^echo wants tokens, sequence_lengths; it does not read more$",
        ),
        ("echo", {"tokens": TOKENS, "lengths": LENGTHS}, "^echo wants tokens, sequence_lengths; missing: sequence_lengths$"),
        ("echo", {"tokens": TOKENS[:, :, None], "sequence_lengths": LENGTHS}, r"^tokens: int32 with 2 axes wanted, got int32 of shape \(3, 4, 1\)$"),
        ("echo", {"tokens": -TOKENS - 1, "sequence_lengths": LENGTHS}, "^tokens lie between 0 and 99, got -12 to -1$"),
        ("echo", {"tokens": TOKENS + 99, "sequence_lengths": LENGTHS}, "^tokens lie between 0 and 99, got 99 to 110$"),
        ("echo", {"tokens": TOKENS, "sequence_lengths": LENGTHS + 1}, "^sequence_lengths lie between 1 and the 4 columns of tokens, got 3 to 5$"),
        ("echo", {"tokens": TOKENS, "sequence_lengths": LENGTHS[:2]}, "^sequence_lengths has 2 entries for 3 rows of tokens$"),
        (
            "echo",
            {"tokens": np.zeros((1, 20), np.int32), "sequence_lengths": LENGTHS[:1] * 5},
            "^a sequence has 20 tokens, the longest allowed has 16$",
        ),
        (
            "echo",
            {"tokens": np.zeros((1 << 10, 1 << 9), np.int32), "sequence_lengths": LENGTHS},
            "^the request has 2,097,164 bytes, at most 1,048,576 ",
        ),
        ("echo", {"tokens": TOKENS[:0], "sequence_lengths": LENGTHS}, "^tokens: an array with elements"),
        ("texts", {"texts": np.array(["unicode"])}, "^texts: .* texts as bytes"),
        ("ecko", {"tokens": TOKENS, "sequence_lengths": LENGTHS}, "^the echo server has no endpoint 'ecko'$"),
    ],
)
def test_a_bad_request_is_told_and_the_server_lives_on(client: Client, endpoint: str, arrays: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(BadRequest, match=said) as refused:
        client.call(endpoint, **arrays).result(120)
    assert "Traceback" not in str(refused.value)
    assert ask(client)["sums"].tolist() == TOKENS.sum(1).tolist()


def test_another_key_is_not_answered(served: Served, tmp_path: Path, client: Client) -> None:
    address, _ = discovery.find(served[0], "echo")
    discovery.publish(tmp_path, "echo", address.url, sealed.new_key())
    with pytest.raises(PermissionError, match=r"does not have the key in echo.key"):
        ask(Client(tmp_path, "echo", patience_s=10))
    assert ask(client)["sums"].tolist() == TOKENS.sum(1).tolist()


def test_it_says_that_it_is_ready(client: Client, tmp_path: Path) -> None:
    assert client.ready()
    assert not Client(tmp_path, "echo").ready()


def test_nobody_there_is_said_with_the_role_the_place_and_the_time_waited(tmp_path: Path) -> None:
    discovery.publish(tmp_path, "echo", "unix:/nobody", sealed.new_key())
    with pytest.raises(
        Unreachable, match=rf"echo of the echo server: no answer in \d+ s of 1 s patience; unix:/nobody: FileNotFoundError.*; see {tmp_path}/logs"
    ):
        ask(Client(tmp_path, "echo", patience_s=1))


def test_an_answer_that_is_not_what_was_promised_is_the_servers_fault() -> None:
    endpoint = Endpoint("half", (), (Field("y", np.float32, 1),), lambda _: {"y": np.zeros(2)})
    with pytest.raises(TypeError, match="half answered .*float64"):
        endpoint.answer({})


def pending(pid: int, number: signal.Signals) -> bool:
    """Whether a signal that was sent to the process has not reached it yet."""
    masks = [line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("ShdPnd:")]
    return bool(int(masks[0], 16) >> (number - 1) & 1)


def test_servers_that_are_killed_or_fail_or_end(served: Served) -> None:
    """The lives of four servers, the last test of this file: what one does not answer is answered by the next."""
    run, servers = served[0], [served[1]]
    client = Client(run, "echo", patience_s=300)
    faulty, short = (np.array([seconds], np.float32) for seconds in (-1, 0))
    hold = run / "hold"

    def begun() -> Future:
        """A request that the newest server is at work on."""
        hold.touch()
        asked = client.call("held", seconds=short)
        until((run / f"asked.{servers[-1].pid}").exists)
        return asked

    try:
        first = discovery.find(run, "echo")[0]
        asked = begun()
        servers[0].kill()
        servers[0].wait()
        hold.unlink()
        servers.append(start(run))
        assert discovery.find(run, "echo")[0].url != first.url
        assert asked.result(120)["pid"][0] == servers[1].pid

        next(child for child in family(servers[1]) if child.name() == "tritonserver").kill()
        assert servers[1].wait(120) == 1
        assert "tritonserver of the echo server died" in (run / "echo.log").read_text()

        servers.append(start(run))
        fault = client.call("slow", seconds=faulty)
        assert servers[2].wait(120) == 1
        assert "ValueError: sleep length must be non-negative" in (run / "echo.log").read_text()
        assert not fault.done()
        client.close()

        servers.append(start(run))
        client = Client(run, "echo", patience_s=300)
        assert client.call("slow", seconds=short).result(120)["pid"][0] == servers[3].pid
        last = begun()
        servers[3].send_signal(signal.SIGTERM)
        until(lambda: not pending(servers[3].pid, signal.SIGTERM), what="the signal's arrival, while it is at work")
        assert not last.done() and servers[3].poll() is None
        hold.unlink()
        assert last.result(120)["pid"][0] == servers[3].pid
        assert servers[3].wait(120) == 0
        assert not (run / "endpoints" / "echo.json").exists()
    finally:
        client.close()
        for server in servers[1:]:
            end(server)
