"""What a process of a run says in its own log: a line with the time for each phase, checkpoint, validation and warning, and for some of the steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from workbench.metrics import brief

INTERVAL_S = 2.0
"""Steps, and the progress of one phase, have at most one line in so many seconds."""


def say(line: str) -> None:
    """One line, with the local time in front. Raises OSError on a full disk."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}", flush=True)


class Log:
    """Events as lines of this process's log."""

    def __init__(self, interval_s: float = INTERVAL_S, clock: Callable[[], float] = time.monotonic, say: Callable[[str], None] = say):
        self._interval_s, self._clock, self._say = interval_s, clock, say
        self._stepped = self._progressed = -math.inf
        self._phase = ""

    def event(self, kind: str, values: Mapping[str, Any]) -> None:
        """Log an event of a run (`workbench.rundir.lines.Event` lists the kinds); kinds that say nothing to a reader have no line."""
        if (kind == "step" and not self._step_is_due()) or (kind == "phase" and not self._phase_is_due(values)):
            return
        if line := _line(kind, values):
            self._say(line)

    def _step_is_due(self) -> bool:
        now = self._clock()
        if now - self._stepped < self._interval_s:
            return False
        self._stepped = now
        return True

    def _phase_is_due(self, values: Mapping[str, Any]) -> bool:
        """When it begins, when it is done, and now and then between."""
        now, begins, done = self._clock(), values["message"] != self._phase, values.get("total") and values.get("done") == values["total"]
        if not (begins or done) and now - self._progressed < self._interval_s:
            return False
        self._phase, self._progressed = values["message"], now
        return True


def _line(kind: str, values: Mapping[str, Any]) -> str:
    match kind:
        case "state":
            return f"running from step {values.get('step', 0)} of {values.get('total_steps') or '?'}"
        case "phase":
            share = f" ({values['done']:,}/{values['total']:,})" if values.get("total") else ""
            return (values["message"] or "running again") + share
        case "data":
            report = values["report"]
            return f"data: {report['rows']:,} rows, {report['train']:,} to train on, {report['validation']:,} held out, {report['bad']:,} malformed"
        case "step":
            return f"step {values['step']}: {brief(values.get('metrics', {}))}"
        case "validation":
            return f"step {values['step']}: held out: {brief(values.get('metrics', {}))}"
        case "checkpoint":
            took = f" in {values['seconds']:.1f} s" if "seconds" in values else ""
            return f"step {values['step']}: checkpoint saved{took}"
        case "alarm":
            return f"alarm: {values['name']}: {values['message']}"
        case "alarm_over":
            return f"alarm over: {values['name']}"
        case "warning":
            return f"warning: {values['message']}"
        case "control":
            return f"request: {values['request']} {values.get('values') or ''}".rstrip()
        case "end":
            return f"{values['reason']} at step {values['step']}"
    return ""
