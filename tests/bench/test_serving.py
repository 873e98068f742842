"""Round trips to a server: what is measured, drawn and left out, and that no namespace outlives the command."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workbench.bench import links, serving
from workbench.bench.links import Link
from workbench.bench.relay import relayed
from workbench.terminal.cli import app


def test_loopback_is_measured_and_drawn_and_what_the_kernel_cannot_make_is_left_out_or_emulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "impossible", lambda: "network namespaces need root")
    plot = tmp_path / "plot.html"
    words = ["bench", "serving", "--calls", "20", "--steps", "0", "--json", "--plot", str(plot)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0
    assert "Links are left out: network namespaces need root" in result.stderr
    found = json.loads(result.stdout)
    assert found["ppo"] == []
    rows = found["round_trips"]
    names = ["loopback", "relay, nothing added", "relay, RTT + 0.1 ms", "relay, RTT + 1 ms", "relay, RTT + 10 ms"]
    assert [(row["link"], row["rows"], row["tokens"]) for row in rows] == [(name, *shape) for name in names for shape in serving.SHAPES]
    assert all(0 < row["p50_ms"] <= row["p95_ms"] and row["mb_per_s"] > 0 for row in rows)
    assert rows[2]["megabytes"] == pytest.approx((2 * 128 * 1024 * 4 + 128 * 4) / 1e6)
    assert all(row["p50_ms"] > 10 for row in rows[-3:])
    assert "relay, RTT + 10 ms" in plot.read_text()


def test_a_relay_hands_on_what_it_reads_that_much_later(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "target"))
        listening.listen()
        with relayed(f"unix:{tmp_path / 'target'}", 0.05) as url, socket.socket(socket.AF_UNIX) as near:
            near.connect(url.removeprefix("unix:"))
            far, _ = listening.accept()
            started = time.perf_counter()
            near.sendall(b"there")
            assert far.recv(100) == b"there"
            assert time.perf_counter() - started >= 0.05
            far.sendall(b"and back")
            assert near.recv(100) == b"and back"
            assert time.perf_counter() - started >= 0.1
            near.shutdown(socket.SHUT_WR)
            assert far.recv(100) == b""
            far.close()


@pytest.mark.skipif(bool(links.impossible()), reason=links.impossible() or "-")
def test_a_link_that_the_kernel_cannot_make_is_told_and_the_namespace_goes() -> None:
    with pytest.raises(KeyError), links.namespace() as (namespace, ours, theirs):
        assert links.shape(Link("as it is"), namespace, ours, theirs) == ""
        assert "nosuch" in links.shape(Link("none", ("nosuch rate 1gbit",)), namespace, ours, theirs)
        assert links.shape(Link("second", ("nosuch rate 1gbit", "tbf rate 1gbit burst 128kb latency 100ms")), namespace, ours, theirs) == ""
        assert "tbf" in subprocess.run(["tc", "qdisc", "show", "dev", ours], capture_output=True, text=True, check=True).stdout
        links.shape(Link("as it is"), namespace, ours, theirs)
        assert "tbf" not in subprocess.run(["tc", "qdisc", "show", "dev", ours], capture_output=True, text=True, check=True).stdout
        raise KeyError
    assert namespace not in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert ours not in subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
