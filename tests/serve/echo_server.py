"""A server that says what it is given (`echo`), in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from tests.waiting import until
from workbench.serve import discovery


def start(run: Path) -> subprocess.Popen:
    """A server of its own; returns once it is announced."""
    with (run / "echo.log").open("ab") as log:
        process = subprocess.Popen([sys.executable, "-m", "tests.serve.echo", str(run)], stdout=log, stderr=log)
    try:
        until(
            lambda: process.poll() is not None or ((address := _announced(run)) and address.pid == process.pid), what="the echo server's announcement"
        )
        assert process.poll() is None, (run / "echo.log").read_text()[-3000:]
    except AssertionError:
        end(process)
        raise
    return process


def _announced(run: Path) -> discovery.Address | None:
    try:
        return discovery.find(run, "echo")[0]
    except FileNotFoundError:
        return None


def family(process: subprocess.Popen) -> list[psutil.Process]:
    return [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]


def end(process: subprocess.Popen) -> None:
    """Whatever a failed test has left of a server."""
    if process.poll() is None:
        for each in family(process):
            each.kill()
        process.wait()
