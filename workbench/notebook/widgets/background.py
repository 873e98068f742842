"""What a widget has done beside its kernel: one thread, which ends when there is nothing more to do or the widget is closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Job = TypeVar("Job")


class Background(Generic[Job]):
    """Does the newest job that it was given, and forgets those before it.

    `work(job)` runs in the thread, and says whether the same job is to be done again after the pause. A job that comes meanwhile goes first.

    Args:
        name: the thread's.
        quiet_s: for how long no other job may have come before one is done, in seconds: so typing costs one, not one a key.
    """

    def __init__(self, name: str, work: Callable[[Job], bool], quiet_s: float = 0.0) -> None:
        self._name, self._work, self._quiet_s = name, work, quiet_s
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._job: Job | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @property
    def going(self) -> bool:
        """Whether it was not closed."""
        return not self._closed

    @property
    def busy(self) -> bool:
        """Whether there is something to do, or being done."""
        return self._thread is not None

    def give(self, job: Job | None) -> None:
        """Do this next; None forgets what was to be done."""
        with self._lock:
            if self._closed:
                return
            self._job = job
            self._news.set()
            if self._thread is None and job is not None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def newest(self, job: Job) -> bool:
        """Whether nothing came after this job: what it found out is still asked for."""
        with self._lock:
            return self._job is job and not self._closed

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until nothing is left to do. False where it takes longer than this."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
            return not thread.is_alive()
        return True

    def close(self) -> None:
        """Do nothing more. What is being done ends by itself, and its result goes nowhere."""
        with self._lock:
            self._closed = True
            self._job = None
            self._news.set()

    def _run(self) -> None:
        try:
            while (job := self._next()) is not None:
                if not (self._quiet_s and self._news.wait(self._quiet_s)) and not self._work(job):
                    with self._lock:
                        if self._job is job:
                            self._job = None
        finally:
            with self._lock:
                if self._thread is threading.current_thread():  # after an error: the next job starts another one
                    self._thread = self._job = None

    def _next(self) -> Job | None:
        with self._lock:
            self._news.clear()
            if self._job is None:
                self._thread = None
            return self._job
