"""The curves of a live widget: what the browser lacks is sent as a small header beside buffers of numbers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import anywidget

from workbench.views import live
from workbench.views.figures import Axis
from workbench.views.live import Update

STATIC = Path(__file__).parent / "static"
Updates = Callable[[str | None, float, Axis], Update]
"""What a reader lacks since a cursor: `workbench.views.live.updates` of a run."""


class Charts(anywidget.AnyWidget):
    """The charts of one run or of several.

    `updates` gives what is new; `hear` is called with each message of a view that says that it is there or goes.
    """

    _esm = live.text_of("charts.js") + STATIC.joinpath("charts_widget.js").read_text()
    _css = live.text_of("charts.css") + STATIC.joinpath("widgets.css").read_text()

    def __init__(self, updates: Updates, hear: Callable[[Mapping[str, object]], None], smoothing: float = 0.9, axis: Axis = "step"):
        self._updates, self._hear = updates, hear
        self.smoothing: float = smoothing
        self.axis: Axis = axis
        self._cursor: str | None = None
        self._going: bool | None = None
        self._lock = threading.Lock()
        super().__init__()
        self.on_msg(self._on_message)

    def choose(self, smoothing: float, axis: Axis) -> None:
        """Smooth more or less, or draw over the other axis: all views start over with the next push."""
        with self._lock:
            self.smoothing, self.axis, self._cursor = smoothing, axis, None

    def restart(self) -> None:
        """Let all views start over with the next push."""
        with self._lock:
            self._cursor = None

    def push(self, views: frozenset[str], fresh: frozenset[str], going: bool) -> None:
        """Send the views what is new, and a fresh one all there is."""
        with self._lock:
            old, changed = views - fresh, going != self._going
            self._going = going
            if old:
                began = time.perf_counter()
                update = self._updates(self._cursor, self.smoothing, self.axis)
                if update.reset:
                    old, fresh = frozenset(), views  # all start over
                elif changed or not update.empty:
                    self._send_update(update, self._cursor, going, old, began)
                self._cursor = update.cursor
            if fresh:
                began = time.perf_counter()
                whole = self._updates(None, self.smoothing, self.axis)
                self._send_update(whole, None, going, fresh if whole.cursor == self._cursor else fresh | old, began)
                self._cursor = whole.cursor

    def tell(self, message: str) -> None:
        """Show a sentence above the charts; the empty one takes it away."""
        self.send({"kind": "say", "message": message})

    def _send_update(self, update: Update, since: str | None, going: bool, to: frozenset[str], began: float) -> None:
        header, buffers = update.packed()
        about = {"kind": "curves", "to": [*sorted(to)], "since": since or "", "going": going, "axis": self.axis}
        self.send({**about, **header, "made_ms": 1e3 * (time.perf_counter() - began)}, buffers)

    def _on_message(self, _: object, content: Mapping[str, object], buffers: object) -> None:
        if content.get("kind") == "plotly":
            self.send({"kind": "plotly", "to": [str(content.get("view", ""))]}, [live.plotly_gzip()])
            return
        if content.get("kind") == "beat":
            self.send({"kind": "alive", "to": [str(content.get("view", ""))]})
        self._hear(content)
