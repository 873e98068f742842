"""From a run's events to tidy frames and plotly figures; pure, and shared by the app and the notebooks.

`history` reads events (`feed` keeps those of many runs up to date), `series` thins and smooths them, `catalogue` says which metrics are drawn together, `figures` draws (`diagnostics` for reward models,
`rollouts` for answers in colour, `profile` for where a step's seconds go), `machines` shows nodes and queue, `tables` makes the rows of lists and comparisons, `text` writes numbers and times for people.
"""

from workbench.views import catalogue, diagnostics, feed, figures, history, machines, profile, rollouts, series, tables, text
from workbench.views.history import History, Validation

__all__ = [
    "History",
    "Validation",
    "catalogue",
    "diagnostics",
    "feed",
    "figures",
    "history",
    "machines",
    "profile",
    "rollouts",
    "series",
    "tables",
    "text",
]
