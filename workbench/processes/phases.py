"""The seconds of a step by phase."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator

from workbench.metrics import TIME_OF
from workbench.rundir import beats


class PhaseTimes:
    """Seconds by phase since they were taken last."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Within: this rank does `name`."""
        started = time.perf_counter()
        with beats.doing(name):
            yield
        self._seconds[name] += time.perf_counter() - started

    def take(self) -> dict[str, float]:
        """As a step's metrics, `time_<phase>_s`; from now on they count anew."""
        times: dict[str, float] = {TIME_OF(name): seconds for name, seconds in self._seconds.items()}
        self._seconds.clear()
        return times

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Within: what is timed belongs to no step."""
        kept = dict(self._seconds)
        yield
        self._seconds.clear()
        self._seconds.update(kept)
