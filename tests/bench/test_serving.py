"""Round trips to a server: what is measured, drawn and left out, and that no namespace outlives the command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from workbench.bench import serving
from workbench.bench.serving import Link
from workbench.cli import app


def test_loopback_is_measured_and_drawn_and_links_are_left_out_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving.os, "geteuid", lambda: 1000)
    plot = tmp_path / "plot.html"
    result = CliRunner().invoke(app, ["bench", "serving", "--calls", "20", "--json", "--plot", str(plot)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "Links are left out: network namespaces need root" in result.stderr
    rows = json.loads(result.stdout)
    assert [(row["link"], row["rows"], row["tokens"]) for row in rows] == [("loopback", *shape) for shape in serving.SHAPES]
    assert all(0 < row["p50_ms"] <= row["p95_ms"] and row["mb_per_s"] > 0 for row in rows)
    assert rows[2]["megabytes"] == pytest.approx((2 * 128 * 1024 * 4 + 128 * 4) / 1e6)
    assert "loopback" in plot.read_text()


@pytest.mark.skipif(bool(serving._no_links()), reason=serving._no_links() or "-")
def test_a_link_that_the_kernel_cannot_make_is_told_and_the_namespace_goes() -> None:
    with pytest.raises(KeyError), serving._namespace() as (namespace, ours, theirs):
        assert serving._shape(Link("as it is"), namespace, ours, theirs) == ""
        assert "nosuch" in serving._shape(Link("none", ("nosuch rate 1gbit",)), namespace, ours, theirs)
        assert serving._shape(Link("second", ("nosuch rate 1gbit", "tbf rate 1gbit burst 128kb latency 100ms")), namespace, ours, theirs) == ""
        assert "tbf" in subprocess.run(["tc", "qdisc", "show", "dev", ours], capture_output=True, text=True, check=True).stdout
        serving._shape(Link("as it is"), namespace, ours, theirs)
        assert "tbf" not in subprocess.run(["tc", "qdisc", "show", "dev", ours], capture_output=True, text=True, check=True).stdout
        raise KeyError
    assert namespace not in subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert ours not in subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
