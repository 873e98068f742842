"""What it costs to ask a server: round trips over PyTriton on loopback and over slow links, and the share of a PPO step that they are.

The server of the round trips sends a float for each token, as a critic does, and computes nothing. Links between two network namespaces need
root, `ip` and `tc`; each that this host cannot make is left out, and the reason printed. Delays that its kernel cannot make are emulated by a
relay in user space, and called so.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from workbench.bench import communication, links, short_ppo
from workbench.bench.communication import Share
from workbench.bench.links import Link
from workbench.bench.relay import relayed
from workbench.models.endpoint import Arrays, Endpoint, Field
from workbench.serve import discovery
from workbench.serve.client import Client
from workbench.serve.server import Server

SHAPES = ((1, 16), (32, 256), (128, 1024))
LOOPBACK = "127.0.0.1"
START_S = 90.0
RELAYS_OF_PPO = (("loopback", None), ("relay, RTT + 1 ms", 0.0005), ("relay, RTT + 10 ms", 0.005))


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


def measure(calls: int, model: str, steps: int, as_json: bool, plot: Path | None, console: Console) -> None:
    """Measure every payload over every link, and `steps` steps of PPO over some; print, and draw into `plot` (HTML).

    Raises:
        ValueError: a server did not start, or the PPO failed; the message has the reason.
    """
    results: list[Measured] = []
    with _served(LOOPBACK) as (run_dir, client):
        results += _over("loopback", client, calls, console)
        links, left = _over_links(calls, console)
        results += links
        results += _relayed(left, run_dir, calls, console)
    shares = _shares(model, steps, console) if steps else []
    if as_json:
        print(json.dumps({"round_trips": [asdict(row) for row in results], "ppo": [each.record() for each in shares]}))
    else:
        _render(results, console)
        if shares:
            console.print(_share_table(shares, model, steps))
    if plot:
        _draw(results, shares).write_html(plot, include_plotlyjs=True)
        console.print(f"Plotted in {plot}", highlight=False)


def _shares(model: str, steps: int, console: Console) -> list[Share]:
    with console.status(f"PPO of {model}") as status, short_ppo.model_folder(model) as source:
        results = []
        for name, one_way_s in RELAYS_OF_PPO:
            status.update(f"PPO of {model}: {name}")
            results.append(communication.measure(source, name, steps, one_way_s))
        return results


def echo(arrays: Arrays) -> Arrays:
    return {"values": arrays["tokens"].astype(np.float32)}


def _over_links(calls: int, console: Console) -> tuple[list[Measured], list[Link]]:
    """What was measured, and the links that this host cannot make; why is printed."""
    if reason := links.impossible():
        console.print(f"Links are left out: {reason}", highlight=False)
        return [], list(links.LINKS)
    results: list[Measured] = []
    left: list[Link] = []
    with links.namespace() as (namespace, ours, theirs), _served(links.THERE, "ip", "netns", "exec", namespace) as (_, client):
        for link in links.LINKS:
            if reason := links.shape(link, namespace, ours, theirs):
                console.print(f"{link.name} is left out: {reason}", highlight=False)
                left.append(link)
            else:
                results += _over(link.name, client, calls, console)
    return results, left


def _relayed(left: Sequence[Link], run_dir: Path, calls: int, console: Console) -> list[Measured]:
    """Delays that the kernel does not make, emulated; the relay's own cost first."""
    delays = [(link.name, link.one_way_s) for link in left if link.one_way_s]
    results: list[Measured] = []
    address, key = discovery.find(run_dir, "echo")
    for name, one_way_s in [("nothing added", 0.0), *delays] if delays else ():
        with tempfile.TemporaryDirectory(prefix="workbench-serving-") as folder, relayed(address.url, one_way_s) as url:
            discovery.publish(Path(folder), "echo", url, key)
            client = Client(Path(folder), "echo", patience_s=30)
            results += _over(f"relay, {name}", client, calls, console)
            client.close()
    return results


def _over(link: str, client: Client, calls: int, console: Console) -> list[Measured]:
    results = []
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
        results.append(Measured(link, rows, width, megabytes, statistics.median(ms), p95, calls * megabytes / together_s))
    return results


@contextmanager
def _served(host: str, *before: str) -> Iterator[tuple[Path, Client]]:
    """The folder and a client of an echo server at this address; `before` are the words that its command begins with."""
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
            yield run_dir, client
        finally:
            client.close()
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _render(results: list[Measured], console: Console) -> None:
    table = Table(Column("link", no_wrap=True), "tokens", "MB both ways", "p50 ms", "p95 ms", "MB/s, 4 at a time", box=None, header_style="dim")
    for row in results:
        numbers = (f"{row.megabytes:.3g}", f"{row.p50_ms:.2f}", f"{row.p95_ms:.2f}", f"{row.mb_per_s:.3g}")
        table.add_row(row.link, f"{row.rows} x {row.tokens}", *numbers)
    console.print(table)


def _share_table(shares: Sequence[Share], model: str, steps: int) -> Table:
    title = f"seconds of a PPO step of {model}, critic and reward served, {short_ppo.ROLLOUTS} answers, medians of {steps} steps"
    columns = ["step", *(f"{name}" for name in communication.ENDPOINTS), "on the wire", "in servers", "policy waits"]
    table = Table(Column("link", no_wrap=True), *columns, box=None, header_style="dim", title=title, title_justify="left")
    for each in shares:
        wire = [f"{each.wire_s[name]:.3f}" for name in communication.ENDPOINTS]
        table.add_row(each.link, f"{each.step_s:.2f}", *wire, f"{each.on_the_wire:.1%}", f"{sum(each.server_s.values()):.3f}", f"{each.waiting:.1%}")
    return table


def _draw(results: Sequence[Measured], shares: Sequence[Share]) -> Any:
    """Left p50 over the payload, a line a link, with a bar up to p95, logarithmic; right the share of a PPO step on the wire, by endpoint."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    titles = ["Round trips to a server: p50, and up to p95", *(["Share of a PPO step on the wire"] if shares else [])]
    figure = make_subplots(cols=len(titles), subplot_titles=titles, column_widths=[0.6, 0.4][: len(titles)] if shares else None)
    for link in dict.fromkeys(row.link for row in results):
        rows = [row for row in results if row.link == link]
        figure.add_trace(_line(link, rows), row=1, col=1)
    for name in communication.ENDPOINTS if shares else ():
        heights = [each.wire_s[name] / each.step_s for each in shares]
        figure.add_trace(go.Bar(x=[each.link for each in shares], y=heights, name=name, legend="legend2"), row=1, col=2)
    figure.update_xaxes(type="log", title="MB, both ways", col=1)
    figure.update_yaxes(type="log", title="ms", col=1)
    if shares:
        figure.update_yaxes(tickformat=".1%", col=2)
    legend = {"orientation": "h", "yanchor": "top", "y": -0.15}
    return figure.update_layout(template="simple_white", barmode="stack", legend=legend, legend2={**legend, "x": 0.62})


def _line(link: str, rows: Sequence[Measured]) -> Any:
    import plotly.graph_objects as go

    above = [max(row.p95_ms - row.p50_ms, 0.0) for row in rows]
    return go.Scatter(
        x=[row.megabytes for row in rows],
        y=[row.p50_ms for row in rows],
        error_y={"type": "data", "array": above, "arrayminus": [0.0] * len(rows), "symmetric": False},
        text=[f"{row.rows} x {row.tokens} tokens, {row.mb_per_s:.1f} MB/s" for row in rows],
        hovertemplate="%{text}: p50 %{y:.2f} ms",
        name=link,
        mode="lines+markers",
    )


def main() -> None:
    """The server's side: RUN_DIR HOST."""
    inputs = (Field("tokens", np.int32, 2), Field("sequence_lengths", np.int32, 1))
    Server(Path(sys.argv[1]), "echo", [Endpoint("echo", inputs, (Field("values", np.float32, 2),), echo)], host=sys.argv[2]).run()


if __name__ == "__main__":
    main()
