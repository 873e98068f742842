"""A run that stands still: which rank is frozen, or which rank is in what while the others wait for it. The driver asks; see `workbench.rundir.beats`."""

from __future__ import annotations

import math
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from workbench.rundir import beats
from workbench.rundir.beats import Beat
from workbench.rundir.events import EventWriter
from workbench.rundir.store import RunDir
from workbench.settings import Watch

NAME = "hang"
START_FACTOR = 4
"""Before the first step a model may be fetched and loaded without a word, so the limit is this much longer."""
MISSED = 3
"""Beats in a row that a frozen rank has missed."""
MOST_GROUPS = 4


@dataclass
class _Heard:
    """What the driver knows of one rank, by the driver's own clock."""

    beat: Beat
    at: float
    moved_at: float


class HangWatch:
    """Sounds an alarm when no rank has made progress for `hang_after_s`, and calls it off when one does.

    `ranks` is how many each role has. What it writes are events of the role `driver`: {kind: alarm, name, step, message, ranks} and {kind: alarm_over,
    name, seconds}. `restart` is called with the ranks at fault where the settings say so.
    """

    def __init__(
        self,
        run: RunDir,
        settings: Watch,
        ranks: Mapping[str, int],
        restart: Callable[[Sequence[Beat]], None] = lambda at_fault: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.message = ""
        """What stands still now; empty where nothing does."""
        self.ended = ""
        """The hang for which ranks were ended last."""
        self.restart = restart
        self._run, self._settings, self._ranks, self._clock = run, settings, ranks, clock
        self._heard: dict[tuple[str, int], _Heard] = {}
        self._moved_at = self._began = clock()
        self._named: tuple[object, ...] = ()
        self._asked, self._attempt, self._interval_s = -math.inf, 0, max(1.0, sum(ranks.values()) / beats.RANKS_A_SECOND)
        self._first = 0  # this driver's first attempt
        self._events: EventWriter | None = None

    def moved(self) -> None:
        """The run made progress: an event came."""
        self._moved_at = self._clock()

    def poll(self, attempt: int, started: bool) -> bool:
        """Look at the beats, now and then. `started`: the first step has begun, or later ones. Whether `message` is another one."""
        now = self._clock()
        if not self._settings.hang_after_s or now - self._asked < self._interval_s:
            return False
        self._asked = now
        if attempt != self._attempt:
            self._first = self._first or attempt
            self._attempt, self._heard = attempt, {}
            self.moved()
        self._listen(now)
        quiet_s = now - max([self._moved_at, *(heard.moved_at for heard in self._heard.values())])
        limit_s = self._settings.hang_after_s * (1 if started else START_FACTOR)
        if quiet_s < limit_s:
            return self._call_off(now)
        silent = self._silent(now)
        if not silent and quiet_s < limit_s + (MISSED + 1) * self._interval_s:
            return False  # a rank that has just been frozen is not told from one that waits
        named = tuple((beat.role, beat.rank) for beat in silent) or ("waiting",)
        if self.message and named == self._named:
            return False
        self._emit_alarms(named, silent, quiet_s, now)
        return True

    def _listen(self, now: float) -> None:
        for beat in beats.read(self._run):
            known = self._heard.get((beat.role, beat.rank))
            if beat.attempt < (self._attempt if beat.role == "actor" else self._first):  # of a process that is gone; servers restart by themselves
                continue
            if known is None or (known.beat.pid, known.beat.number) != (beat.pid, beat.number):
                self._heard[beat.role, beat.rank] = _Heard(beat, now, now - beat.quiet_s)

    def _silent(self, now: float) -> list[Beat]:
        """The ranks that should beat and do not."""
        return [h.beat for h in self._heard.values() if not h.beat.ended and now - h.at > MISSED * max(h.beat.interval_s, self._interval_s)]

    def _emit_alarms(self, named: tuple[object, ...], silent: Sequence[Beat], quiet_s: float, now: float) -> None:
        heard = [h.beat for h in self._heard.values()]
        began = {(role, rank) for role, rank in self._heard}
        missing = [(role, rank) for role, count in self._ranks.items() for rank in range(count) if (role, rank) not in began]
        if not self.message:
            self._began = now - quiet_s
        self._named = named
        self.message = report(heard, silent, missing, quiet_s)
        step = max((beat.step for beat in heard), default=0)
        self._write("alarm", name=NAME, step=step, message=self.message, ranks=[f"{beat.role} {beat.rank}" for beat in silent], seconds=quiet_s)
        print(f"hang: {self.message}", flush=True)
        if self._settings.on_hang == "restart":
            self.ended = self.message
            self.restart(silent or [beat for beat in heard if (beat.role, beat.rank) == ("actor", 0)])

    def _call_off(self, now: float) -> bool:
        if not self.message:
            return False
        self._write("alarm_over", name=NAME, seconds=now - self._began)
        print(f"hang: over after {now - self._began:.0f} s", flush=True)
        self.message = self.ended = ""
        return True

    def _write(self, kind: str, **values: object) -> None:
        """An event; a full disk is no reason to end the run that the alarm is about."""
        try:
            self._events = self._events or EventWriter(self._run, "driver")
            self._events.write(kind, **values)
        except OSError as error:
            print(f"warning: the alarm could not be written: {error}", flush=True)


def report(heard: Iterable[Beat], silent: Sequence[Beat], missing: Sequence[tuple[str, int]], quiet_s: float) -> str:
    """Who is frozen, who has not come, and who waits where, the smallest group first: it is the one that the others wait for."""
    parts = [f"no rank made progress for {_duration(quiet_s)}"]
    for beat in silent:
        parts.append(f"{_names([(beat.role, beat.rank)])} does not beat (frozen, or its node is lost), last seen in {_activity(beat)}")
    if missing:
        parts.append(f"{_names(missing)} never began")
    frozen = {(beat.role, beat.rank) for beat in silent}
    groups: dict[tuple[str, str], list[Beat]] = defaultdict(list)
    for beat in heard:
        if (beat.role, beat.rank) not in frozen:
            groups[beat.role, "its end" if beat.ended else _activity(beat)].append(beat)
    for (_, activity), same in sorted(groups.items(), key=lambda item: len(item[1]))[:MOST_GROUPS]:
        since = _duration(min(beat.quiet_s for beat in same))
        parts.append(f"{_names([(b.role, b.rank) for b in same])} {'is' if len(same) == 1 else 'are'} in {activity} for {since}")
    return "; ".join(parts)


def _activity(beat: Beat) -> str:
    inside = f" ({beat.collective}, {beat.place})" if beat.collective else f" ({beat.place})" if beat.place else ""
    return f"{beat.phase}{inside}"


def _names(ranks: Sequence[tuple[str, int]]) -> str:
    """`rank 1`, `ranks 0, 2-7`, `critic rank 0`: the policy's ranks go without their role."""
    parts = []
    for role in dict.fromkeys(role for role, _ in ranks):
        numbers = sorted(rank for other, rank in ranks if other == role)
        runs: list[list[int]] = []
        for number in numbers:
            if runs and number == runs[-1][1] + 1:
                runs[-1][1] = number
            else:
                runs.append([number, number])
        shown = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
        parts.append(f"{'' if role == 'actor' else f'{role} '}rank{'s' if len(numbers) > 1 else ''} {shown}")
    return " and ".join(parts)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def kill(run_dir: str, processes: Sequence[tuple[str, int]]) -> None:
    """Runs on every node: end those of the (host, pid) that are here and are still the run's."""
    import psutil

    for host, pid in processes:
        if host != socket.gethostname() or pid == os.getpid():
            continue
        try:
            process = psutil.Process(pid)
            if run_dir in process.cmdline():
                process.kill()
        except psutil.NoSuchProcess:
            continue
