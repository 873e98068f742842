"""From a run's events to tidy frames and plotly figures; pure, and shared by the app and the notebooks.

`history` reads events (`feed` keeps those of many runs up to date), `series` thins and smooths them, `catalogue` says which metrics are drawn together, `figures` draws (`diagnostics` for reward models,
`rollouts` for answers in colour, `profile` for where a step's seconds go), `machines` shows nodes and queue, `tables` makes the rows of lists and comparisons, `text` writes numbers and times for people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.views.history import History, Validation

__all__ = ["History", "Validation"]


def __getattr__(name: str) -> object:
    """The command line needs `text` alone, and does not wait for pandas."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from workbench.views import history

    return getattr(history, name)
