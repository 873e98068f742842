"""The one way in which tests wait for what other processes and threads do."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import TypeVar

import psutil

from workbench import api
from workbench.rundir.store import RunDir

T = TypeVar("T")
SHORTEST_S, LONGEST_S = 0.01, 0.2


def until(condition: Callable[[], T], timeout_s: float = 240, what: str = "", run: api.Run | RunDir | None = None) -> T:
    """Poll until the condition is true, and return its value.

    Args:
        timeout_s: far more than a slow machine takes, as it is only reached by what would never come.
        what: what is waited for, for the error; without it the condition's source.
        run: it must not end before the condition is true.

    Raises:
        AssertionError: with what was waited for and what the condition returned last, after `timeout_s` seconds or when the run has ended.
    """
    began = time.monotonic()
    while True:
        ended = run is not None and run.status.state.ended  # asked first: what the run did last counts
        if last := condition():
            return last
        waited_s = time.monotonic() - began
        assert not ended, f"{_told(condition, what, waited_s, last)}; the run has ended: {_account(run)}"
        assert waited_s < timeout_s, _told(condition, what, waited_s, last) + (f"; {_account(run)}" if run else "")
        time.sleep(min(LONGEST_S, max(SHORTEST_S, waited_s / 20)))


def until_step(run: api.Run | RunDir, step: int, timeout_s: float = 240) -> int:
    """Wait until the run has reported this step or a later one; returns the newest."""

    def reached() -> int:
        newest = max((event["step"] for event in run.events() if event["kind"] == "step"), default=0)
        return newest if newest >= step else 0

    return until(reached, timeout_s, f"step {step} of {run.id}", run)


def ended(process: psutil.Process) -> bool:
    """Whether it runs no longer; it may end while it is asked."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE or not process.is_running()
    except psutil.NoSuchProcess:
        return True


def _told(condition: Callable[[], object], what: str, waited_s: float, last: object) -> str:
    return f"waited {waited_s:.1f} s for {what or inspect.getsource(condition).strip()}; last seen: {last!r}"


def _account(run: api.Run | RunDir | None) -> str:
    return f"{run.status}\n{run.log_tail('driver')}\n{run.log_tail()}" if run else ""
