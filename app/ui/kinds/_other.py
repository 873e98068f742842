"""The Run page of a kind of job that has no view of its own."""

from __future__ import annotations

from ui.run_panels import LOG, SETTINGS, Tab
from workbench.api import Run
from workbench.rundir.store import Status
from workbench.views import History, tables
from workbench.views.text import Figure


def headline(run: Run, history: History, status: Status) -> list[Figure]:
    return tables.pace(history, status, "Ran")


def above_tabs(run: Run) -> None:
    """Nothing."""


def tabs(run: Run) -> list[Tab]:
    return [LOG, SETTINGS]
