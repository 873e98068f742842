"""What the run's owner asks for while it is running: to stop, to pause, other settings. Every rank acts on the same requests, at a step boundary."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from workbench.engine import parallel
from workbench.processes.rank import Rank
from workbench.rundir import beats
from workbench.rundir.files import ByteCursor

PAUSE_POLL_S = 0.3


class Controls:
    """The requests of a run. `last_request_time` is the time of the newest one whose outcome is part of what was restored.

    `change` makes a change of settings; it warns of what it refuses.
    """

    def __init__(self, rank: Rank, change: Callable[[Mapping[str, object]], None], last_request_time: float = 0.0):
        self.last_request_time = last_request_time
        self.paused = False
        self._rank, self._change = rank, change
        self._cursor, self._first_look = ByteCursor(), True

    def stop_requested(self, step: int) -> bool:
        """Act on what was asked for since the last look, and wait while the run is to pause."""
        with beats.doing("requests"):
            stop = self.obey(step)
        if not self.paused:
            return stop
        self._rank.emit("phase", message=f"paused at step {step}")
        with beats.doing("pause"):
            while self.paused:
                time.sleep(PAUSE_POLL_S)
                beats.moved()
                stop = self.obey(step)
        self._rank.emit("phase", message="")
        return stop

    def obey(self, step: int) -> bool:
        """Take the new requests, the same on every rank; whether one of them is to stop."""
        requests = parallel.from_first(self._rank.run.requests(self._cursor) if parallel.rank() == 0 else [])
        if self._first_look:  # a gang that was started again reads them again; the checkpoint has the outcome of those before it
            requests = [each for each in requests if each["request"] != "set" or each["time"] > self.last_request_time]
            self._first_look = False
        for request in requests:
            self._rank.emit("control", **{"asked" if key == "time" else key: value for key, value in request.items()}, step=step)
            if request["request"] == "set":
                self._change(request["values"])
            self.paused = request["request"] == "pause" or (self.paused and request["request"] not in ("unpause", "stop"))
        self.last_request_time = max([self.last_request_time, *(each["time"] for each in requests)])
        stop = any(request["request"] == "stop" and request.get("attempt") in (None, self._rank.attempt) for request in requests)
        self.paused = self.paused and not stop
        return stop
