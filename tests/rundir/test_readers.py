"""No writer waits for a reader: readers that stand still with everything open, or at the most awkward moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.app import synthetic, synthetic_rollouts
from workbench.rundir import beats, rollouts, store
from workbench.rundir.events import EventWriter
from workbench.rundir.store import RunDir, State

READER = """
import os, signal, sys
from pathlib import Path
from workbench.rundir import rollouts
from workbench.rundir.store import RunDir
run = RunDir(Path(sys.argv[1]))
held = [path.open("rb") for path in sorted(run.path.rglob("*")) if path.is_file()]
mapped = [rollouts.one(run, step, 0) for step in rollouts.steps(run)]
events = run.events()
seen = [next(events)["seq"]]
print(len(held), flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
seen += [event["seq"] for event in events]
print(seen == list(range(len(seen))), len(seen), flush=True)
"""
UPDATER = """
import os, signal, sys
from pathlib import Path
from workbench.rundir import files
print("-", flush=True)
with files.lock(Path(sys.argv[1]) / ".status.lock"):
    os.kill(os.getpid(), signal.SIGSTOP)
"""

Stop = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return synthetic_rollouts.make(tmp_path, 4)


@pytest.fixture
def stopped(run: RunDir) -> Iterator[Stop]:
    """Starts a script and returns when it has stopped itself."""
    started = []

    def start(script: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", script, str(run.path)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_reader_that_stands_still_with_every_file_open_holds_nobody_up(run: RunDir, stopped: Stop) -> None:
    reader = stopped(READER)
    events, heart = EventWriter(run), beats.Heart(run, "actor")
    for step in range(5, 1005):
        events.write("step", step=step, metrics=synthetic.step_metrics(step))
    synthetic_rollouts.write(run, 4)  # in place of one that the reader has open
    synthetic_rollouts.write(run, 5)
    heart._beat()
    run.update(step=1004)
    run.request("stop")
    assert psutil.Process(reader.pid).status() == psutil.STATUS_STOPPED  # whoever had waited for it would wait still
    assert rollouts.steps(run) == [1, 2, 3, 4, 5]
    reader.send_signal(signal.SIGCONT)
    out, _ = reader.communicate(timeout=120)
    assert int(out.split()[0]) > 8
    assert out.split()[1:] == ["True", str(sum(1 for _ in run.events()))]


def test_a_page_that_stands_still_while_it_marks_a_run_is_not_waited_for_long(run: RunDir, stopped: Stop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_TIMEOUT_S", 0.5)
    page = stopped(UPDATER)
    began = time.monotonic()
    run.update(state=State.COMPLETED)
    assert time.monotonic() - began >= 0.5
    assert psutil.Process(page.pid).status() == psutil.STATUS_STOPPED
    assert run.status.state == State.COMPLETED
