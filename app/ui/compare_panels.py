"""The parts of the Compare page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import streamlit as st

from ui import frame
from workbench.api import Run
from workbench.rundir.opening import Unreadable
from workbench.settings.stored import spec_tree
from workbench.views import catalogue, comparison, feed, figures, series, text


def label(run: Run) -> str:
    """A name people know, with the end of the id that tells equal names apart."""
    try:
        name = str(spec_tree(run.dir).get("name", "run"))
    except Unreadable:
        name = "unreadable"
    return text.visible(f"{name} · {run.id[-4:]}")


def curves(runs: Sequence[Run]) -> None:
    """One metric of all the runs, and where each of them stands."""
    with ExitStack() as stack:
        # In the order of the ids, so that two pages that compare the same runs never wait for each other.
        opened = {run.id: stack.enter_context(feed.history(run.dir)) for run in sorted(runs, key=lambda run: run.id)}
        histories = {label(run): opened[run.id] for run in runs}
        options = comparison.choices(histories.values())
        if not options:
            st.info("None of these runs has made a step yet.", icon=":material/hourglass_empty:")
            return
        metric, held_out, smoothing, axis = _controls(options)
        figure = figures.compare(histories, metric, smoothing, axis, held_out, frame.theme())
        standing = [comparison.standing(name, history, metric, held_out) for name, history in histories.items()]
    st.plotly_chart(
        figure, theme=None, key="compare-chart", config={"displayModeBar": False}, alt=f"{catalogue.label(metric)} of {len(runs)} runs by {axis}"
    )
    if help_text := catalogue.explained(metric):
        st.caption(f"**{frame.plain(catalogue.label(metric))}**: {frame.plain(help_text)}")
    st.dataframe(standing, hide_index=True, alt="Newest and best value of each run")


def _controls(options: list[comparison.Choice]) -> tuple[str, bool, float, figures.Axis]:
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        metric, held_out = st.selectbox(
            "Metric",
            options,
            index=comparison.first_choice(options),
            format_func=comparison.label,
            key="compare-metric",
            width=300,
        )
        smoothing = "Off"
        if not held_out:  # held-out values are few, and drawn as they are
            smoothing = st.segmented_control(
                "Smoothing", list(series.SMOOTHING), default="Medium", required=True, key="compare-smoothing", persist_state="session"
            )
        axis = st.segmented_control("Horizontal axis", ["Step", "Time"], default="Step", required=True, key="compare-axis")
    return metric, held_out, series.SMOOTHING[smoothing or "Off"], "time" if axis == "Time" else "step"
