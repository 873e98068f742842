"""The Run page of a run that measures a checkpoint."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from ui import choose, frame, run_panels
from ui.run_panels import LOG, SETTINGS, Tab
from workbench import api
from workbench import metrics as M
from workbench.api import Run
from workbench.metrics import METRICS
from workbench.rundir.store import Status
from workbench.settings.stored import spec_tree
from workbench.views import History, feed, tables, text
from workbench.views.text import Figure

FIGURES = 4


def headline(run: Run, history: History, status: Status) -> list[Figure]:
    """The metrics that have a short name, and how long it took."""
    measured = history.validations[-1].metrics if history.validations else {}
    brief = [metric for metric in METRICS.values() if metric.brief and metric in measured][:FIGURES]
    figures = [
        Figure(tables.brief(metric), tables.value_of(metric, measured[metric]), "" if metric == M.ACCURACY else metric.unit, metric.help)
        for metric in brief
    ]
    if status.state.ended:
        figures.append(Figure("Took", text.duration(status.updated - status.created), "start included"))
    return figures


def above_tabs(run: Run) -> None:
    """Which weights it measures."""
    checkpoint = spec_tree(run.dir).get("job", {}).get("checkpoint")
    if not checkpoint:
        st.caption("Measures the model as it is, without a checkpoint.")
        return
    folder = Path(checkpoint)
    known = next((other for other in api.runs() if other.dir.checkpoints.resolve() == folder.parent and not choose.unreadable(other)), None)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="measured"):
        if known is None:
            st.markdown(f"Measures the checkpoint {frame.code(folder)}", width="content")
            return
        st.markdown(f"Measures step **{frame.plain(folder.name)}** of", width="content")
        name, run_id = str(spec_tree(known.dir).get("name", known.id)), known.id
        st.page_link("pages/run.py", label=frame.plain(f"{name} · {run_id[-4:]}"), icon=":material/monitoring:", query_params={"id": run_id})


def tabs(run: Run) -> list[Tab]:
    diagnostics = [run_panels.DIAGNOSTICS] if run_panels.diagnosed(run) else []
    return [Tab("Metrics", "table_chart", _metrics), Tab("Answers", "forum", _answers), *diagnostics, LOG, SETTINGS]


def _metrics(run: Run) -> None:
    with feed.history(run.dir) as history:
        measured = dict(history.validations[-1].metrics) if history.validations else {}
    if not measured:
        st.info("The metrics appear when the held-out rows are measured.", icon=":material/table_chart:")
        return
    rows = [
        {"Metric": row.title, "Value": text.number(row.held_out), "Unit": row.unit, "What it is": row.help} for row in tables.measured({}, measured)
    ]
    column = st.column_config
    st.dataframe(
        rows,
        hide_index=True,
        height="content",
        alt=f"{len(rows)} metrics on the held-out rows",
        column_config={
            "Metric": column.TextColumn(width=230),
            "Value": column.TextColumn(width=96, alignment="right"),
            "Unit": column.TextColumn(width=230),
            "What it is": column.TextColumn(width="large"),
        },
    )


def _answers(run: Run) -> None:
    with feed.history(run.dir) as history:
        samples = list(history.validations[-1].samples) if history.validations else []
    if not samples:
        st.info("No held-out prompt was answered. How many are: `validation.samples`.", icon=":material/forum:")
        return
    for sample in samples:
        run_panels.sampled(sample)
