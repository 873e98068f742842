"""The Run page of a run that rates answers."""

from __future__ import annotations

import streamlit as st

from ui import frame, row_files
from ui.run_panels import LOG, SETTINGS, Tab
from workbench.api import Run
from workbench.rundir import annotations as file
from workbench.rundir import opening
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import Status
from workbench.views import History, rated_answers, tables
from workbench.views.text import Figure

SHOWN = 1000
"""Rated answers that are drawn and listed: the first ones."""


def headline(run: Run, history: History, status: Status) -> list[Figure]:
    return tables.pace(history, status, "Rated")


def above_tabs(run: Run) -> None:
    """Nothing."""


def tabs(run: Run) -> list[Tab]:
    return [Tab("Ratings", "grade", _ratings, every_s=None), LOG, SETTINGS]


def _ratings(run: Run) -> None:
    """How the ratings spread, and the first answers with theirs; the file with all of them."""
    frame.refreshed(_file, None if run.status.state.ended else 2.0)(run)


def _file(run: Run) -> None:
    path = run.dir.path / file.ANNOTATED
    try:
        size = opening.stat(path).st_size
        rows = file.read_first(path, SHOWN)
    except Unreadable as error:
        st.error(f"Cannot be read: {frame.plain(str(error))}", icon=":material/error:")
        return
    except FileNotFoundError:
        st.info(f"`{file.ANNOTATED}` is written when every answer is rated.", icon=":material/grade:")
        return
    row_files.download(run, path, size)
    if rated_answers.attributes(rows):
        st.plotly_chart(
            rated_answers.ratings(rows, frame.theme()), theme=None, config={"displayModeBar": False}, key="ratings", alt="Answers by rating"
        )
    if len(rows) == SHOWN:
        st.caption(f"The first {SHOWN:,} answers.")
    st.dataframe(rated_answers.table(rows), hide_index=True, key="rated-answers")
