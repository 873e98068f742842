"""The Run page of a run that trains."""

from __future__ import annotations

import streamlit as st

from ui import access, charts, checkpoint_panel, control_panel, profile_panel, run_panels
from ui.run_panels import LOG, SETTINGS, Tab
from workbench.api import Run
from workbench.rundir.store import Status
from workbench.views import History, feed, series, tables
from workbench.views.text import Figure


def headline(run: Run, history: History, status: Status) -> list[Figure]:
    return tables.headline(history, status)


def above_tabs(run: Run) -> None:
    """Nothing."""


def tabs(run: Run) -> list[Tab]:
    diagnostics = [run_panels.DIAGNOSTICS] if run_panels.diagnosed(run) else []
    return [
        Tab("Curves", "show_chart", _curves, every_s=None, kept=True),
        Tab("Answers", "forum", run_panels.answers),
        Tab("Profile", "timer", profile_panel.draw, every_s=5.0),
        LOG,
        Tab("Checkpoints", "save", checkpoint_panel.draw),
        SETTINGS,
        *([Tab("Controls", "joystick", control_panel.draw)] if access.may_change() else []),
        *diagnostics,
        *([Tab("References", "swap_horiz", _references)] if _references_of(run) else []),
    ]


def _references_of(run: Run) -> list[dict[str, object]]:
    with feed.history(run.dir) as history:
        return tables.references(history)


def _references(run: Run) -> None:
    """Of an algorithm whose reference is moved up to the policy: each of them."""
    st.caption("The policy as it was when the reference was moved up to it; each row's measurements are the last against that reference.")
    st.dataframe(_references_of(run), hide_index=True, alt="The references that the policy had, with the digests of their weights")


def _curves(run: Run) -> None:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        smoothing = st.segmented_control(
            "Smoothing", list(series.SMOOTHING), default="Medium", required=True, help="Exponential moving average: 0.6, 0.9 or 0.98 on the past."
        )
        axis = st.segmented_control("Horizontal axis", ["Step", "Time"], default="Step", required=True)
    charts.draw(run.id, not run.status.state.ended, series.SMOOTHING[smoothing or "Off"], "time" if axis == "Time" else "step")
