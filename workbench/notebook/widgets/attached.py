"""The thread of a live widget: it exists only while a view in a browser is attached to something that still changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

EVERY_S = 0.5
LOST_S = 150.0
"""After this time without a heartbeat a view is taken for gone: browsers let the timers of a tab in the background run once a minute."""


@dataclass
class Attached:
    """Which views are attached, and the one thread that serves them.

    `tick(fresh)` brings the views up to date, of which those in `fresh` know nothing yet, and returns whether anything will still change; `going` says
    that before a thread is started for it. A view says hello when it is drawn, with a number and until it is answered, beats while something changes, and says bye when it goes. A view of what
    has ended is served by the thread that brings the message.
    """

    name: str
    tick: Callable[[frozenset[str]], bool]
    going: Callable[[], bool]
    every_s: float = EVERY_S
    clock: Callable[[], float] = time.monotonic
    _heard: dict[str, float] = field(default_factory=dict)
    _hellos: dict[str, object] = field(default_factory=dict)
    _fresh: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ticking: threading.Lock = field(default_factory=threading.Lock)
    _wake: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _closed: bool = False

    @property
    def views(self) -> frozenset[str]:
        return frozenset(self._heard)

    @property
    def thread(self) -> threading.Thread | None:
        """The thread, while there is one."""
        return self._thread

    def hear(self, message: Mapping[str, object]) -> None:
        """Take a view's message; other kinds than hello, beat and bye are not for here."""
        kind, view = message.get("kind"), str(message.get("view", ""))
        with self._lock:
            if self._closed or kind not in ("hello", "beat", "bye"):
                return
            if kind == "bye":
                self._heard.pop(view, None)
                self._hellos.pop(view, None)
                self._fresh.discard(view)
                self._wake.set()
                return
            known, number = view in self._heard, message.get("number", 0)
            self._heard[view] = self.clock()
            if not known or (kind == "hello" and number != self._hellos.get(view)):  # one that was taken for gone knows too little
                self._fresh.add(view)
            elif self._thread or kind == "hello":
                return
            if kind == "hello":
                self._hellos[view] = number
        self.serve()

    def serve(self) -> None:
        """Bring the attached views up to date soon: by the thread, which is started where something changes, or at once where nothing does any more."""
        with self._lock:
            if self._closed or not self._heard:
                return
            self._wake.set()
            if self._thread:
                return
            if self.going():
                now = self.clock()
                self._heard = dict.fromkeys(self._heard, now)  # they did not beat while nothing changed
                self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
                self._thread.start()
                return
        self._tick()

    def go_on(self) -> None:
        """Start the thread again where something changes again."""
        if self._thread is None and self._heard and self.going():
            self.serve()

    def close(self) -> None:
        """End the thread, and listen no more."""
        with self._lock:
            self._closed = True
            self._heard.clear()
            self._wake.set()

    def _tick(self) -> bool:
        with self._ticking:
            with self._lock:
                fresh, self._fresh = frozenset(self._fresh & self._heard.keys()), set()
            return self.tick(fresh)

    def _run(self) -> None:
        try:
            self._serve_views()
        except BaseException:
            with self._lock:
                self._thread = None
            raise

    def _serve_views(self) -> None:
        more = True
        while True:
            with self._lock:
                lost = [view for view, heard in self._heard.items() if self.clock() - heard > LOST_S]
                for view in lost:
                    del self._heard[view]
                    self._hellos.pop(view, None)
                if not self._heard or not (more or self._fresh):
                    self._thread = None
                    return
                self._wake.clear()
            more = self._tick()
            if more:
                self._wake.wait(self.every_s)
