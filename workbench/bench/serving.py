"""What it costs to ask a server: round trips over PyTriton, on loopback and over links made slow, between two network namespaces of this host.

The server sends a float for each token, as a critic does, and computes nothing. Links need root, `ip` and `tc`; each that this host cannot make is
left out, and the reason printed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from workbench.serve.client import Client
from workbench.serve.endpoint import Arrays, Endpoint, Field
from workbench.serve.server import Server

SHAPES = ((1, 16), (32, 256), (128, 1024))
LOOPBACK, HERE, THERE = "127.0.0.1", "10.231.77.1", "10.231.77.2"
START_S = 90.0


@dataclass(frozen=True)
class Link:
    """`qdiscs` are alternatives, the first that this kernel knows is taken; it stands at both ends."""

    name: str
    qdiscs: tuple[str, ...] = ()


LINKS = (
    Link("veth, unshaped"),
    Link("10 Gbit/s", ("netem rate 10gbit limit 100000", "tbf rate 10gbit burst 256kb latency 100ms")),
    Link("1 Gbit/s", ("netem rate 1gbit limit 100000", "tbf rate 1gbit burst 128kb latency 100ms")),
    Link("RTT + 0.1 ms", ("netem delay 50us limit 100000",)),
    Link("RTT + 1 ms", ("netem delay 500us limit 100000",)),
    Link("RTT + 10 ms", ("netem delay 5ms limit 100000",)),
)


@dataclass(frozen=True)
class Measured:
    """One payload over one link: tokens and lengths there, values back. `mb_per_s` is both ways, four requests under way."""

    link: str
    rows: int
    tokens: int
    megabytes: float
    p50_ms: float
    p95_ms: float
    mb_per_s: float


def measure(calls: int, as_json: bool, plot: Path | None, console: Console) -> None:
    """Measure every payload over every link that this host can make; print, and draw into `plot` (HTML).

    Raises:
        ValueError: the server did not start; the message has the end of its log.
    """
    found: list[Measured] = []
    with _served(LOOPBACK) as client:
        found += _over("loopback", client, calls, console)
    if reason := _no_links():
        console.print(f"Links are left out: {reason}", highlight=False)
    else:
        found += _over_links(calls, console)
    if as_json:
        print(json.dumps([asdict(row) for row in found]))
    else:
        _render(found, console)
    if plot:
        _draw(found).write_html(plot, include_plotlyjs=True)
        console.print(f"Plotted in {plot}", highlight=False)


def echo(arrays: Arrays) -> Arrays:
    return {"values": arrays["tokens"].astype(np.float32)}


def _over_links(calls: int, console: Console) -> list[Measured]:
    found: list[Measured] = []
    with _namespace() as (namespace, ours, theirs), _served(THERE, "ip", "netns", "exec", namespace) as client:
        for link in LINKS:
            if reason := _shape(link, namespace, ours, theirs):
                console.print(f"{link.name} is left out: {reason}", highlight=False)
            else:
                found += _over(link.name, client, calls, console)
    return found


def _over(link: str, client: Client, calls: int, console: Console) -> list[Measured]:
    found = []
    for rows, width in SHAPES:
        with console.status(f"{link}: {rows} x {width} tokens"):
            request = {"tokens": np.ones((rows, width), np.int32), "sequence_lengths": np.full(rows, width, np.int32)}
            for _ in range(3):
                client.call("echo", **request).result()
            seconds = []
            for _ in range(calls):
                started = time.perf_counter()
                client.call("echo", **request).result()
                seconds.append(time.perf_counter() - started)
            started = time.perf_counter()
            for future in [client.call("echo", **request) for _ in range(calls)]:
                future.result()
            together_s = time.perf_counter() - started
        megabytes = (2 * rows * width * 4 + rows * 4) / 1e6
        ms = [1e3 * s for s in seconds]
        p95 = statistics.quantiles(ms, n=20)[-1]
        found.append(Measured(link, rows, width, megabytes, statistics.median(ms), p95, calls * megabytes / together_s))
    return found


@contextmanager
def _served(host: str, *before: str) -> Iterator[Client]:
    """A client of an echo server at this address; `before` are the words that its command begins with."""
    with tempfile.TemporaryDirectory(prefix="workbench-serving-") as folder:
        run_dir, log = Path(folder), Path(folder) / "log"
        with log.open("wb") as file:
            command = [*before, sys.executable, "-m", "workbench.bench.serving", folder, host]
            process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
        client = Client(run_dir, "echo", patience_s=30)
        try:
            deadline = time.monotonic() + START_S
            while not client.ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise ValueError(f"the server at {host} did not start:\n{log.read_text()[-1000:]}")
                time.sleep(0.1)
            yield client
        finally:
            client.close()
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _no_links() -> str:
    """Why this host can make no links; empty where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    return f"no {' nor '.join(missing)} here (package iproute2)" if missing else ""


@contextmanager
def _namespace() -> Iterator[tuple[str, str, str]]:
    """(a namespace, this host's end, its end): joined by a pair of interfaces. It is gone afterwards, after SIGTERM too."""
    namespace = f"workbench-{os.getpid()}"
    ours, theirs = f"wb{os.getpid()}a", f"wb{os.getpid()}b"
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        inside = f"ip -n {namespace}"
        for command in (
            f"ip netns add {namespace}",
            f"ip link add {ours} type veth peer name {theirs} netns {namespace}",
            f"ip address add {HERE}/30 dev {ours}",
            f"ip link set {ours} up",
            f"{inside} address add {THERE}/30 dev {theirs}",
            f"{inside} link set {theirs} up",
            f"{inside} link set lo up",
        ):
            if failed := _tool(command):
                raise ValueError(f"{command}: {failed}")
        yield namespace, ours, theirs
    finally:
        _tool(f"ip link del {ours}")
        _tool(f"ip netns del {namespace}")
        signal.signal(signal.SIGTERM, before)


def _shape(link: Link, namespace: str, ours: str, theirs: str) -> str:
    """Shape both ends like this. Returns why it is not possible, or nothing."""
    ends = (f"tc qdisc %s dev {ours} root", f"tc -n {namespace} qdisc %s dev {theirs} root")
    reasons = []
    for qdisc in link.qdiscs or ("",):
        for end in ends:
            _tool(end % "del")
        failed = next((failed for end in ends if qdisc and (failed := _tool(f"{end % 'add'} {qdisc}"))), "")
        if not failed:
            return ""
        reasons.append(f"{qdisc.split()[0]}: {failed}")
    return "; ".join(reasons)


def _tool(command: str) -> str:
    """Run it. Returns what it complained of, or nothing."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip().replace("\n", "; ") or f"exit code {done.returncode}"


def _render(found: list[Measured], console: Console) -> None:
    table = Table("link", "tokens", "MB both ways", "p50 ms", "p95 ms", "MB/s, 4 at a time", box=None, header_style="dim")
    for row in found:
        numbers = (f"{row.megabytes:.3g}", f"{row.p50_ms:.2f}", f"{row.p95_ms:.2f}", f"{row.mb_per_s:.3g}")
        table.add_row(row.link, f"{row.rows} x {row.tokens}", *numbers)
    console.print(table)


def _draw(found: list[Measured]) -> Any:
    """p50 over the payload, a line a link, with a bar up to p95; both axes logarithmic."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for link in dict.fromkeys(row.link for row in found):
        rows = [row for row in found if row.link == link]
        figure.add_scatter(
            x=[row.megabytes for row in rows],
            y=[row.p50_ms for row in rows],
            error_y={
                "type": "data",
                "array": [max(row.p95_ms - row.p50_ms, 0.0) for row in rows],
                "arrayminus": [0.0] * len(rows),
                "symmetric": False,
            },
            text=[f"{row.rows} x {row.tokens} tokens, {row.mb_per_s:.1f} MB/s" for row in rows],
            hovertemplate="%{text}: p50 %{y:.2f} ms",
            name=link,
            mode="lines+markers",
        )
    return figure.update_layout(
        template="simple_white",
        title="Round trips to a server: p50, and up to p95",
        xaxis={"title": "MB, both ways", "type": "log"},
        yaxis={"title": "ms", "type": "log"},
    )


def main() -> None:
    """The server's side: RUN_DIR HOST."""
    inputs = (Field("tokens", np.int32, 2), Field("sequence_lengths", np.int32, 1))
    Server(Path(sys.argv[1]), "echo", [Endpoint("echo", inputs, (Field("values", np.float32, 2),), echo)], host=sys.argv[2]).run()


if __name__ == "__main__":
    main()
