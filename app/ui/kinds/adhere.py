"""The Run page of a run that measured whether answers are what was requested."""

from __future__ import annotations

from ui import steering_panels
from ui.run_panels import LOG, SETTINGS, Tab
from workbench.api import Run
from workbench.rundir.store import Status
from workbench.views import History, tables
from workbench.views.text import Figure


def headline(run: Run, history: History, status: Status) -> list[Figure]:
    return tables.pace(history, status, "Measured")


def above_tabs(run: Run) -> None:
    """Nothing."""


def tabs(run: Run) -> list[Tab]:
    return [Tab("Adherence", "target", steering_panels.of_run, every_s=None), LOG, SETTINGS]
