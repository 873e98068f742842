"""The requests that wait for an answer, and which is next."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")
IN_A_ROW = 64
"""As many of one group are answered while another group waits."""


class Waiting(Generic[T]):
    """A queue of groups: those of the group that was answered last come before all others, so that changes between groups are few.

    Within a group they come in the order in which they were put. With `linger_s` a request of another group waits that long for one of
    the same. Groups stand for models of which one is on the accelerator.
    """

    def __init__(self, linger_s: float = 0.0):
        self._linger_s = linger_s
        self._waiting: deque[tuple[str, T]] = deque()
        self._changed = threading.Condition()
        self._last: str | None = None
        self._in_a_row = 0

    def put(self, item: T, group: str = "") -> None:
        with self._changed:
            self._waiting.append((group, item))
            self._changed.notify()

    def get(self, timeout_s: float) -> T:
        """The next one. Raises queue.Empty where none comes in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting, timeout_s):
                raise queue.Empty
            deadline = time.monotonic() + (self._linger_s if self._last is not None else 0.0)
            while (chosen := self._of_last()) is None and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            if chosen is None or self._in_a_row >= IN_A_ROW:
                chosen = next((i for i, (group, _) in enumerate(self._waiting) if group != self._last), 0)
            group, item = self._waiting[chosen]
            del self._waiting[chosen]
            self._in_a_row = self._in_a_row + 1 if group == self._last else 1
            self._last = group
            return item

    def __len__(self) -> int:
        return len(self._waiting)

    def drain(self) -> list[T]:
        """All that wait, taken out."""
        with self._changed:
            items = [item for _, item in self._waiting]
            self._waiting.clear()
            return items

    def _of_last(self) -> int | None:
        return next((i for i, (group, _) in enumerate(self._waiting) if group == self._last), None)
