"""Waiting for what is not known yet (a label, a judge's verdict) as a state that has a reason, and ends with a stop."""

from __future__ import annotations

import time
from collections.abc import Callable

from workbench.rewards.base import Waiting
from workbench.rundir import beats

POLL_S = 0.5


class StopRequested(Exception):
    """The run is to stop, and waits for something. The step that it is in is given up: it was not learnt from."""


def until_known(attempt: Callable[[], Waiting | None], report: Callable[[str], None], stopped: Callable[[], bool], poll_s: float = POLL_S) -> None:
    """Call `attempt` until it returns None. All ranks call it, and `attempt` and `stopped` return the same on all of them.

    Args:
        report: told the reason as "waiting for …", whenever it is another one than before; and "" when the wait is over.
        stopped: whether the run is to stop, asked after each attempt that was in vain; it may take as long as it likes.

    Raises:
        StopRequested: as `stopped` said.
    """
    waiting = attempt()
    if waiting is None:
        return
    reported = ""
    with beats.doing("waiting"):
        while waiting is not None:
            if waiting.reason != reported:
                reported = waiting.reason
                report(f"waiting for {reported}")
            if stopped():
                raise StopRequested(reported)
            time.sleep(poll_s)
            beats.moved()
            waiting = attempt()
    report("")
