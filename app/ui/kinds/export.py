"""The Run page of a run that exports a checkpoint."""

from __future__ import annotations

import streamlit as st

from ui import frame
from ui.run_panels import LOG, SETTINGS, Tab
from workbench import metrics as M
from workbench.api import Run
from workbench.rundir import opening
from workbench.rundir.store import State, Status
from workbench.settings.modules import find_job
from workbench.views import History, tables, text
from workbench.views.text import Figure


def headline(run: Run, history: History, status: Status) -> list[Figure]:
    """How far the model in transformers is from the engine's, where that was asked for; and the time."""
    differences = history.metrics.get(M.EXPORT_DIFFERENCE)
    figures = [Figure("Difference", text.number(differences[-1], 3), "transformers and engine")] if differences else []
    return [*figures, *tables.pace(history, status, "Exported")]


def above_tabs(run: Run) -> None:
    """Where the model lies."""
    folder = run.dir.path / find_job("export").Config.outputs["model"]
    if run.status.state == State.COMPLETED and folder.name in opening.names(run.dir.path):
        st.caption(f"The model: {frame.code(folder)}, for transformers, and for later runs as {frame.code(f'model.source={folder}')}")


def tabs(run: Run) -> list[Tab]:
    return [LOG, SETTINGS]
