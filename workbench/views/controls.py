"""What was asked of a run while it was running, and what of that it has not done yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from workbench.rundir.files import ByteCursor
from workbench.rundir.lines import Event, Request
from workbench.rundir.store import RunDir

WORDS = {"pause": "Pause", "unpause": "Resume", "stop": "Stop"}


def waiting(run: RunDir, done: Iterable[Event]) -> list[Request]:
    """What was asked for and is not done yet. A request is known by its time, which is by the clock of whoever asked.

    Raises Unreadable where the requests cannot be read.
    """
    known = {event.get("asked") for event in done}
    return [request for request in run.requests(ByteCursor()) if request["time"] not in known]


def pausing(asked: Sequence[Mapping[str, object]]) -> bool:
    """Whether the run is paused, or will be before its next step, after these requests in their order."""
    return next((each["request"] == "pause" for each in reversed(asked) if each["request"] in WORDS), False)
