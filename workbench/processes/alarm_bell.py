"""Alarms of a run's numbers as events: one when an alarm begins, with the rollouts behind it, one when it is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from workbench.engine.batch import Metrics
from workbench.monitoring import alarms
from workbench.processes.rank import Rank


class AlarmBell:
    """`worst` gives the numbers of the newest step's rollouts in which a quantity stands out."""

    def __init__(self, rank: Rank, worst: Callable[[str], Sequence[int]] = lambda quantity: ()):
        self._rank, self._worst = rank, worst
        self._history: list[Metrics] = []
        self._sounding: set[str] = set()

    def emit_alarms(self, step: int, metrics: Metrics) -> None:
        """An event for each alarm that begins with this step, and for each that is over."""
        self._history.append(metrics)
        now = alarms.raised(self._history)
        for alarm in now:
            if alarm.name not in self._sounding:
                rollouts = list(self._worst(alarm.rank_by)) if alarm.rank_by else []
                self._rank.emit("alarm", step=step, name=alarm.name, message=alarm.message, rollouts=rollouts)
        for name in sorted(self._sounding - {alarm.name for alarm in now}):
            self._rank.emit("alarm_over", step=step, name=name)
        self._sounding = {alarm.name for alarm in now}
