"""How far a long call is: one line that changes in place, in a notebook and in a terminal."""

from __future__ import annotations

import html
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from workbench.views import pictures, text

EVERY_S = 0.5


class Line(Protocol):
    """A line on the screen."""

    def show(self, message: str, share: float | None = None) -> None:
        """Put this in the line's place, with a bar where a share of 0 to 1 is given."""
        ...

    def done(self) -> None:
        """Take the line away."""
        ...


class _Notebook:
    def __init__(self) -> None:
        from IPython.display import HTML, DisplayHandle

        self._html, self._handle = HTML, DisplayHandle()
        self._handle.display(HTML(""))

    def show(self, message: str, share: float | None = None) -> None:
        bar = pictures.progress(share) if share is not None else ""
        self._handle.update(self._html(f'<div style="{pictures.FONT};font-size:12.5px">{html.escape(text.visible(message))}{bar}</div>'))

    def done(self) -> None:
        self._handle.update(self._html(""))


class _Terminal:
    def show(self, message: str, share: float | None = None) -> None:
        sys.stderr.write(f"\r\x1b[K{text.visible(message)}{'' if share is None else f'  {share:.0%}'}")
        sys.stderr.flush()

    def done(self) -> None:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


class _Nowhere:
    def show(self, message: str, share: float | None = None) -> None:
        """Nobody looks: the output goes into a file."""

    def done(self) -> None:
        """Nothing to take away."""


def line() -> Line:
    """The line of the cell that is running, or of the terminal."""
    if in_notebook():
        return _Notebook()
    return _Terminal() if sys.stderr.isatty() else _Nowhere()


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def waiting(message: str) -> Iterator[None]:
    """Show what is waited for and for how long, until the block ends."""
    shown, over, began = line(), threading.Event(), time.monotonic()

    def tell() -> None:
        shown.show(message)
        while not over.wait(EVERY_S):
            shown.show(f"{message} {text.duration(time.monotonic() - began)}")

    teller = threading.Thread(target=tell, name="workbench-progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()
        shown.done()


def follow(poll: Callable[[], tuple[str, float | None] | None]) -> None:
    """Show what `poll` says, twice a second, until it says nothing more."""
    shown = line()
    try:
        while (now := poll()) is not None:
            shown.show(*now)
            time.sleep(EVERY_S)
    finally:
        shown.done()
