"""The live widgets in a real JupyterLab and Chromium: what a long curve costs, what many live views cost, and how old a step is when it is drawn."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, cast

import psutil
from rich.console import Console
from rich.table import Table

from workbench import metrics as M
from workbench.backends import local
from workbench.backends.base import Job
from workbench.bench.browser import START_TIMEOUT_S, chromium, free_port, new_page
from workbench.bench.streaming import METRICS, Ages, ages
from workbench.rundir import store
from workbench.rundir.events import EventWriter
from workbench.rundir.store import RunDir, State
from workbench.settings import spec

if TYPE_CHECKING:
    from playwright.sync_api import Page

APPEND_LIMIT_S, REDRAW_LIMIT_S, CORES_LIMIT, AGE_LIMIT_S = 0.02, 0.1, 0.5, 2.0
WARM_UP, REPEATS = 5, 15
"""Drawings that are not counted, while the browser compiles what draws them; and those that are."""
SETTLE_S = 120
TOGETHER_S = 1.2
"""So long points wait for others where they move a curve by less than half a pixel: TOGETHER_MS of charts.js."""
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
}
CHARTS = ".wb-charts[data-cursor]"
RECORD = """() => {
  window.wbSeen = [];
  setInterval(() => {
    [...document.querySelectorAll('[data-chart="loss"]')].forEach((chart, offset) => {
      const seen = window.wbSeen[offset] ??= [], last = +chart.dataset.last;
      if (last && last !== seen.at(-1)?.[1]) seen.push([Date.now() / 1000, last]);
    });
  }, 5);
}"""
"""When each loss curve of the page came to end at which step."""


@dataclass(frozen=True)
class Measured:
    """Seconds and shares of a core. An append and a redraw are what the kernel takes to make and the browser to draw; drawn together, appends share it."""

    points: int
    append_s: float
    redraw_s: float
    widgets: int
    kernel_cores: float
    browser_cores: float
    ended_cores: float
    age_p50_s: float
    age_p99_s: float

    @property
    def good(self) -> bool:
        return self.append_s < APPEND_LIMIT_S and self.redraw_s < REDRAW_LIMIT_S and self.kernel_cores < CORES_LIMIT and self.age_p99_s < AGE_LIMIT_S


def measure(points: int, widgets: int, rate: float, seconds: float, as_json: bool, console: Console) -> bool:
    """Print a table or JSON; whether all is within its limit. Raises ValueError without a browser or without JupyterLab."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="workbench-notebook-")))
        browser = stack.enter_context(chromium())
        jupyter = stack.enter_context(_jupyter(folder))
        status = stack.enter_context(console.status("…"))
        status.update(f"a curve of {points:,} points")
        append_s, redraw_s = _long_curve(jupyter, new_page(browser), points)
        status.update(f"{widgets} live views")
        measured = Measured(points, append_s, redraw_s, widgets, *_many(jupyter, new_page(browser), widgets, rate, seconds))
    if as_json:
        print(json.dumps({**asdict(measured), "good": measured.good}, indent=2))
    else:
        _render(measured, console)
    return measured.good


IDLE = """(name) => {
    const notebook = window.jupyterapp?.shell.currentWidget, kernel = notebook?.sessionContext?.session?.kernel;
    return notebook?.context?.path === name && kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
"""Whether the notebook of this name is drawn and its kernel connected: what is run before that is not run at all."""


@dataclass(frozen=True)
class _Jupyter:
    folder: Path
    url: str
    token: str
    process: psutil.Process

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def open(self, page: Page, name: str, cells: Sequence[str]) -> None:
        """Write a notebook, open it, and run its cells."""
        nodes = [
            {"cell_type": "code", "id": f"c{n}", "source": cell, "metadata": {}, "outputs": [], "execution_count": None}
            for n, cell in enumerate(cells)
        ]
        about = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        (self.folder / name).write_text(json.dumps({"cells": nodes, "metadata": about, "nbformat": 4, "nbformat_minor": 5}))
        page.goto(f"{self.url}/lab/tree/{name}?token={self.token}&reset")
        page.wait_for_function(IDLE, arg=name)
        page.locator(".jp-Notebook .jp-CodeCell .jp-InputArea-editor").first.click()
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")

    @property
    def kernels(self) -> list[psutil.Process]:
        return [child for child in self.process.children() if "ipykernel_launcher" in child.cmdline()]


@contextmanager
def _jupyter(folder: Path) -> Iterator[_Jupyter]:
    """A JupyterLab over the folder, with configuration of its own."""
    home, port, token = folder / ".jupyter", free_port(), secrets.token_hex(16)
    (folder / "runs").mkdir()
    for name, values in SETTINGS.items():
        path = home / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    places = {f"JUPYTER_{part}_DIR": str(home / part.lower()) for part in ("CONFIG", "DATA", "RUNTIME")}
    places |= {f"JUPYTERLAB_{part}_DIR": str(home / part.lower()) for part in ("SETTINGS", "WORKSPACES")} | {"IPYTHONDIR": str(home / "ipython")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    command += [f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True", "--KernelManager.transport=ipc"]
    log = home / "server.log"
    with log.open("wb") as file:
        environment = {**os.environ, **places, "JUPYTER_TOKEN": token, "WORKBENCH_RUNS": str(folder / "runs")}
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
    try:
        _until_it_answers(process, f"http://127.0.0.1:{port}/api", log)
        yield _Jupyter(folder, f"http://127.0.0.1:{port}", token, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(60)


def _until_it_answers(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=10).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise ValueError(f"JupyterLab did not start; pip install -e .[notebook] installs it. Its log ends:\n{log.read_text()[-1000:]}")


def _long_curve(jupyter: _Jupyter, page: Page, points: int) -> tuple[float, float]:
    """Seconds of an append and of a redraw of a curve of so many points."""
    run = _run(jupyter.runs, "long", points + WARM_UP + REPEATS)
    events = EventWriter(run)
    events.write("state", state="running", step=0, total_steps=points + WARM_UP + REPEATS)
    with run.events_path().open("a") as file:
        for step in range(1, points + 1):
            file.write(
                json.dumps({"seq": step, "time": time.time(), "kind": "step", "step": step, "metrics": {M.LOSS: 1 / step + step % 7 / 100}}) + "\n"
            )
    jupyter.open(page, "long.ipynb", [f"import workbench as wb\nview = wb.LiveRun(wb.get({run.id!r}))\nview"])
    page.locator(CHARTS).first.wait_for(timeout=SETTLE_S * 1e3)
    made, redraws, busy_ms = [], [], [0.0]
    for number in range(WARM_UP + REPEATS):
        before = _drawn(page)
        events.write("step", step=points + number + 1, metrics={M.LOSS: 0.5})
        made.append(_next(page, before)[0])
        busy_ms.append(_busy_ms(page))
    page.wait_for_timeout(2e3 * TOGETHER_S)  # the last are drawn too
    drawing_s = (_busy_ms(page) - busy_ms[WARM_UP]) / REPEATS / 1e3
    for number in range(WARM_UP + REPEATS):
        before = _drawn(page)
        page.get_by_role("button", name=("Off", "Medium")[number % 2], exact=True).click()
        redraws.append(sum(_next(page, before)))
    page.context.close()
    return median(made[WARM_UP:]) + drawing_s, median(redraws[WARM_UP:])


def _busy_ms(page: Page) -> float:
    """Milliseconds that the page has spent on drawing."""
    return float(page.evaluate("offset => document.querySelector(offset).wbBusyMs()", CHARTS))


def _drawn(page: Page) -> int:
    return int(page.locator(CHARTS).first.get_attribute("data-draws") or 0)


def _next(page: Page, before: int) -> tuple[float, float]:
    """Seconds that the next update takes: to make it, and to draw it."""
    page.wait_for_function("([offset, before]) => +document.querySelector(offset).dataset.draws > before", arg=[CHARTS, before], polling=20)
    made, drawn = page.evaluate(
        "offset => { const { madeMs, drawnMs } = document.querySelector(offset).dataset; return [+madeMs, +drawnMs]; }", CHARTS
    )
    return made / 1e3, drawn / 1e3


def _many(jupyter: _Jupyter, page: Page, widgets: int, rate: float, seconds: float) -> tuple[float, float, float, float, float]:
    """Cores of kernel and browser while many live runs write, of the kernel when they have ended; the ages' median and 99th percentile in seconds."""
    runs = [_run(jupyter.runs, f"live-{number}", round(rate * seconds)) for number in range(widgets)]
    with _writer(runs, rate, seconds) as writer:
        known = {kernel.pid for kernel in jupyter.kernels}
        code = f"import workbench as wb\nfor name in {[run.id for run in runs]!r}:\n    display(wb.LiveRun(wb.get(name)))"
        jupyter.open(page, "many.ipynb", [code])
        page.wait_for_function(f"count => document.querySelectorAll('{CHARTS}').length === count", arg=widgets, timeout=SETTLE_S * 1e3)
        page.wait_for_function("() => [...document.querySelectorAll('[data-chart=loss]')].some((chart) => chart.dataset.last)")
        page.evaluate(RECORD)
        (kernel,) = (each for each in jupyter.kernels if each.pid not in known)
        browser = [each for each in psutil.Process().children(recursive=True) if "chrom" in each.name()]
        assert writer.stdin and writer.stdout
        before, began = (_seconds([kernel]), _seconds(browser)), time.monotonic()
        writer.stdin.write(b"go\n")
        writer.stdin.flush()
        writer.stdout.readline()
        took = time.monotonic() - began
        kernel_cores, browser_cores = ((_seconds(each) - start) / took for each, start in zip(([kernel], browser), before, strict=True))
        time.sleep(AGE_LIMIT_S)
        seen = page.evaluate("() => window.wbSeen")
    for run in runs:
        run.update(state=State.COMPLETED)
    page.wait_for_function(f"() => document.querySelectorAll('.wb-notebook .wb-badge').length >= {widgets}")
    time.sleep(3)
    before, began = _seconds([kernel]), time.monotonic()
    time.sleep(3)
    ended_cores = (_seconds([kernel]) - before) / (time.monotonic() - began)
    delays = [age for run, looks in zip(runs, seen, strict=False) if looks for age in ages_of(run, looks)]
    page.context.close()
    of_all = Ages(delays)
    return kernel_cores, browser_cores, ended_cores, of_all.quantile(0.5), of_all.quantile(0.99)


def ages_of(run: RunDir, looks: Sequence[Sequence[float]]) -> list[float]:
    written = [(event["time"], event["step"]) for event in run.events() if event["kind"] == "step"][1:]
    return ages(written, [(when, step) for when, step in looks])


def _seconds(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in processes if each.is_running())


def _run(folder: Path, name: str, steps: int) -> RunDir:
    """A run whose driver is this process, so far."""
    run = store.create(folder, name, spec.compose(["experiment=ppo_demo", f"name={name}"]).to_yaml())
    _driven_by(run, os.getpid(), steps)
    return run


def _driven_by(run: RunDir, pid: int, steps: int) -> None:
    job = Job("local", str(pid), os.uname().nodename, time.time(), local.mark(pid))
    run.update(state=State.RUNNING, attempt=1, total_steps=steps, job=cast(store.Job, asdict(job)))


@contextmanager
def _writer(runs: Sequence[RunDir], rate: float, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this module that writes events of all the runs, once it got a line."""
    command = [sys.executable, "-m", "workbench.bench.notebook", str(rate), str(seconds), *(str(run.path) for run in runs)]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert writer.stdout
        writer.stdout.readline()  # each has its first step
        yield writer
    finally:
        writer.kill()
        writer.wait()


def main() -> None:
    """The runs' first ranks, in one process: RATE SECONDS RUN_DIR…"""
    rate, seconds = float(sys.argv[1]), float(sys.argv[2])
    writers = [EventWriter(RunDir(Path(folder))) for folder in sys.argv[3:]]
    steps = round(rate * seconds)
    for number, writer in enumerate(writers):
        writer.write("state", state="running", step=0, total_steps=steps)
        _step(writer, 1, number)
    print("begun", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    for count in range(steps * len(writers)):  # spread evenly over the time
        time.sleep(max(0.0, began + count / (rate * len(writers)) - time.monotonic()))
        _step(writers[count % len(writers)], 2 + count // len(writers), count)
    print("written", flush=True)
    sys.stdin.read()


def _step(events: EventWriter, step: int, number: int) -> None:
    events.write("step", step=step, metrics={name: 1 / step + (number + offset) % 5 / 50 for offset, name in enumerate(METRICS)})


def _render(measured: Measured, console: Console) -> None:
    table = Table("what", "measured", "limit", box=None, header_style="dim")
    for label, value, limit in (
        (f"append to a curve of {measured.points:,} points", f"{1e3 * measured.append_s:.1f} ms", f"{1e3 * APPEND_LIMIT_S:.0f} ms"),
        ("redraw of the same", f"{1e3 * measured.redraw_s:.1f} ms", f"{1e3 * REDRAW_LIMIT_S:.0f} ms"),
        (f"kernel, {measured.widgets} live views", f"{measured.kernel_cores:.2f} cores", f"{CORES_LIMIT:g} cores"),
        ("browser meanwhile", f"{measured.browser_cores:.2f} cores", ""),
        ("kernel when the runs have ended", f"{measured.ended_cores:.3f} cores", ""),
        ("from the write to the figure, p50", f"{1e3 * measured.age_p50_s:.0f} ms", ""),
        ("from the write to the figure, p99", f"{1e3 * measured.age_p99_s:.0f} ms", f"{1e3 * AGE_LIMIT_S:.0f} ms"),
    ):
        table.add_row(label, value, limit)
    console.print(table)


if __name__ == "__main__":
    main()
