"""Every run's history, read once for all threads of a process (an app's sessions, a notebook's cells) and kept up to date by byte cursor."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import cast

from workbench import metrics as M
from workbench.rundir import checks, opening
from workbench.rundir.files import LONGEST_LINE, ByteCursor, decoded
from workbench.rundir.lines import Event
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import RunDir
from workbench.views import text
from workbench.views.history import History, numbers

KEPT = 64
KEPT_GLANCES = 16384
"""More than there are runs in a list: one entry too few, and a list that is read from its top to its end finds none of them."""
SPARK_POINTS = 48
TAIL_BYTES = 24_000


@dataclass
class _Feed:
    cursor: ByteCursor = field(default_factory=ByteCursor)
    driver: ByteCursor = field(default_factory=ByteCursor)
    history: History = field(default_factory=History)
    problem: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


_feeds: OrderedDict[Path, _Feed] = OrderedDict()
_feeds_lock = threading.Lock()


@contextmanager
def history(run: RunDir) -> Iterator[History]:
    """The run's history up to now, or up to a damaged line. It is shared: read it inside the `with`, and do not keep it."""
    with _feeds_lock:
        feed = _feeds.setdefault(run.path, _Feed())
        _feeds.move_to_end(run.path)
        while len(_feeds) > KEPT:
            _feeds.popitem(last=False)
    with feed.lock:
        try:
            if feed.cursor.offset and _size(run.events_path()) < feed.cursor.offset:
                feed.cursor, feed.driver, feed.history = ByteCursor(), ByteCursor(), History()
            feed.history.extend(run.events(feed.cursor))
            feed.history.extend(run.events(feed.driver, role="driver"))
            feed.problem = ""
        except Unreadable as error:
            feed.problem = str(error)
        yield feed.history


def _size(path: Path) -> int:
    """0 where there is no file."""
    try:
        return opening.stat(path).st_size
    except FileNotFoundError:
        return 0


def problem(run: RunDir) -> str:
    """Why the newest events could not be read; nothing where they could."""
    feed = _feeds.get(run.path)
    return feed.problem if feed else ""


@dataclass(frozen=True)
class Glance:
    """What a list of runs shows of one: a thin curve, the newest values, and the seconds to its end."""

    curve: tuple[float, ...] = ()
    metrics: tuple[tuple[str, float], ...] = ()
    eta_s: float | None = None


def glance(run: RunDir, total_steps: int, metric: str = M.LOSS) -> Glance:
    """A summary of a run that costs the same however long its event file is: some lines spread over it, and its end. Nothing, where it is not read."""
    path = run.events_path()
    try:
        return _glance(path, _size(path), total_steps, metric)
    except (FileNotFoundError, Unreadable):
        return Glance()


@lru_cache(maxsize=KEPT_GLANCES)
def _glance(path: Path, size: int, total_steps: int, metric: str) -> Glance:
    points: list[tuple[int, float]] = []
    with open(path, "rb", opener=opening.opener) as file:
        for number in range(SPARK_POINTS):
            file.seek(size * number // SPARK_POINTS)
            if number:
                file.readline(LONGEST_LINE)
            for _ in range(4):
                event = _parse(file.readline(LONGEST_LINE))
                if event and event["kind"] == "step" and metric in (values := numbers(event.get("metrics", {}))):
                    while points and points[-1][0] >= event["step"]:
                        points.pop()
                    points.append((event["step"], values[metric]))
                    break
        file.seek(max(0, size - TAIL_BYTES))
        events = [_parse(line) for line in file.read(TAIL_BYTES).splitlines()]
    recent = History()
    recent.extend(event for event in events if event and event["kind"] in ("state", "step", "validation"))
    newest = {name: column[-1] for name, column in recent.metrics.items() if column}
    held_out = {f"held_out_{name}": value for name in recent.validation_metrics if (value := recent.last_validation(name)) is not None}
    eta = text.eta_s(recent.steps, recent.elapsed_s, total_steps)
    if recent.steps and metric in newest and (not points or points[-1][0] < recent.steps[-1]):
        points.append((recent.steps[-1], newest[metric]))
    return Glance(tuple(value for _, value in points), tuple({**newest, **held_out}.items()), eta)


def _parse(line: bytes) -> Event | None:
    """An event of a step, or nothing for another line and for one that is truncated or torn."""
    try:
        event = decoded(line)
    except ValueError:
        return None
    return cast(Event, event) if isinstance(event, dict) and "step" in event and not checks.event(event) else None
