"""The parts of the Compare page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import streamlit as st

from ui import frame
from workbench import metrics as M
from workbench.api import Run
from workbench.rundir.opening import Unreadable
from workbench.settings.stored import spec_tree
from workbench.views import History, catalogue, feed, figures, series, text


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
        train = list(dict.fromkeys(name for history in histories.values() for name in history.metrics))
        held = list(dict.fromkeys(name for history in histories.values() for name in history.validation_metrics))
        if not train and not held:
            st.info("None of these runs has made a step yet.", icon=":material/hourglass_empty:")
            return
        metric, held_out, smoothing, axis = _controls(train, held)
        figure = figures.compare(histories, metric, smoothing, axis, held_out, frame.theme())
        standing = [_standing(name, history, metric, held_out) for name, history in histories.items()]
    st.plotly_chart(
        figure, theme=None, key="compare-chart", config={"displayModeBar": False}, alt=f"{catalogue.label(metric)} of {len(runs)} runs by {axis}"
    )
    if help_text := catalogue.explained(metric):
        st.caption(f"**{frame.plain(catalogue.label(metric))}**: {frame.plain(help_text)}")
    st.dataframe(standing, hide_index=True, alt="Newest and best value of each run")


def _controls(train: list[str], held: list[str]) -> tuple[str, bool, float, figures.Axis]:
    options = [*(("held", name) for name in held), *(("train", name) for name in train)]
    default = next((options.index(each) for each in (("held", M.REWARDS), ("train", M.LOSS)) if each in options), 0)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        kind, metric = st.selectbox(
            "Metric",
            options,
            index=default,
            format_func=lambda o: f"{catalogue.label(o[1])}{' (held out)' if o[0] == 'held' else ''}",
            key="compare-metric",
            width=300,
        )
        smoothing = "Off"
        if kind == "train":  # held-out values are few, and drawn as they are
            smoothing = st.segmented_control(
                "Smoothing", list(series.SMOOTHING), default="Medium", required=True, key="compare-smoothing", persist_state="session"
            )
        axis = st.segmented_control("Horizontal axis", ["Step", "Time"], default="Step", required=True, key="compare-axis")
    return metric, kind == "held", series.SMOOTHING[smoothing or "Off"], "time" if axis == "Time" else "step"


def _standing(name: str, history: History, metric: str, held_out: bool) -> dict[str, str]:
    steps, values = figures.curve(history, metric, "step", held_out)
    finite = [(value, int(step)) for step, value in zip(steps, values, strict=True) if value == value and abs(value) != float("inf")]
    row = {"Run": name, "Steps": f"{history.steps[-1]:,}" if history.steps else "0"}
    row |= {"Trained for": text.duration(history.elapsed_s[-1]) if history.elapsed_s else "–"}
    row |= {"Last": text.number(float(values[-1])) if len(values) else "–"}
    for word, pick in (("Min", min), ("Max", max)):
        row[word] = f"{text.number(pick(finite)[0])} at step {pick(finite)[1]}" if finite else "–"
    return row
