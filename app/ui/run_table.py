"""The list of runs, refreshed while anything is running."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import streamlit as st

from ui import access, choose, frame
from workbench import api
from workbench import metrics as M
from workbench.api import Run
from workbench.rundir import pipelines
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import LIVE, State, Status
from workbench.settings.stored import problem, spec_tree, work
from workbench.views import feed, text

ROWS_SHOWN = 18
SHORT_WORK = 10
NAME_PX, CHARACTER_PX, NAME_MAX_PX = 130, 7.2, 420
"""Of the column of names: its least width, what a character takes, its most."""
WIDTHS = {False: {"work": 76, "model": 120, "curve": 80}, True: {"work": 114, "model": 100, "curve": 66}}
"""Pixels of these columns: where not all runs train, the one that says what a run does takes some of the others'."""
HELD_OUT_ACCURACY = f"held_out_{M.ACCURACY}"
FILTERS = {
    "Live": LIVE,
    "Completed": (State.COMPLETED,),
    "Stopped": (State.STOPPED,),
    "Killed": (State.KILLED,),
    "Failed": (State.FAILED,),
}
OPEN, STOP, RESUME, CLONE = (
    ":material/open_in_new: Open",
    ":material/stop_circle: Stop",
    ":material/resume: Resume",
    ":material/content_copy: Clone",
)


def draw(query: str, filters: tuple[str, ...]) -> None:
    """The runs that match, newest first."""
    known = api.runs()
    statuses, unreadable = _statuses(known)
    runs = [run for run in known if run.id in statuses and _matches(run, query.lower().split())]
    wanted = {state for name in filters for state in FILTERS[name]} or set(State)
    shown = [(run, statuses[run.id]) for run in runs if statuses[run.id].state in wanted]
    for reason in unreadable:
        st.caption(frame.sentence(reason))
    if not shown:
        st.info("No run matches the search and the filter.", icon=":material/search_off:")
        return
    _keep_selected([run.id for run, _ in shown])
    rows = pd.DataFrame([_row(run, status) for run, status in shown])
    event = st.dataframe(
        rows,
        key="runs-table",
        hide_index=True,
        height="content" if len(rows) <= ROWS_SHOWN else 760,
        row_height=38,
        on_select="rerun",
        selection_mode=["multi-row", "single-cell"],
        alt=f"{len(rows)} runs with state, progress, loss and actions",
        placeholder="–",
        column_config=_columns(rows),
    )
    chosen = event.selection.rows or [row for row, _ in event.selection.cells]
    _bar([shown[number] for number in chosen if number < len(shown)], len(shown), len(known))
    for failed in st.session_state.pop("runs-problems", []):
        st.error(frame.plain(failed), icon=":material/error:")
    if target := st.session_state.pop("runs-go", None):
        {OPEN: choose.open_run, CLONE: choose.clone}[target[0]](target[1])


def _statuses(runs: list[Run]) -> tuple[dict[str, Status], list[str]]:
    """The runs' statuses by id, and why those of the others cannot be read."""
    statuses, unreadable = {}, []
    for run in runs:
        try:
            statuses[run.id] = run.status
        except Unreadable as error:
            unreadable.append(str(error))
    return statuses, unreadable


def _keep_selected(shown: list[str]) -> None:
    """The selected rows are places in the table: where a new run moves the others down, they move with their runs."""
    before = st.session_state.get("runs-shown", shown)
    if before != shown and "runs-table" in st.session_state:
        was = st.session_state["runs-table"]["selection"]
        row_now = {row: shown.index(run_id) for row, run_id in enumerate(before) if run_id in shown}
        rows = [row_now[row] for row in was["rows"] if row in row_now]
        cells = [(row_now[row], column) for row, column in was.get("cells", ()) if row in row_now]
        st.session_state["runs-table"] = {"selection": {"rows": rows, "cells": cells}}
    st.session_state["runs-shown"] = shown


def _matches(run: Run, terms: list[str]) -> bool:
    spec = spec_tree(run.dir)
    pipeline = " ".join(pipelines.stage_of(run.dir) or ())
    hay = f"{run.id} {pipeline} {spec.get('name')} {work(spec)} {spec.get('model', {}).get('source')} {spec.get('data', {}).get('train')}".lower()
    return all(word in hay for word in terms)


def _row(run: Run, status: Status) -> dict[str, Any]:
    spec = spec_tree(run.dir)
    curve = M.REWARDS if "rewards" in spec.get("algorithm", {}) else M.LOSS
    look = feed.glance(run.dir, status.total_steps, curve)
    newest = dict(look.metrics)
    return {
        "state": [status.state.capitalize()],
        "name": _name(run, spec),
        "actions": [OPEN, *_actions(run, status), *([CLONE] if access.may_change() else [])],
        "work": work(spec),
        "model": str(spec.get("model", {}).get("source", "?")).rstrip("/").rsplit("/", 1)[-1],
        "progress": 100 * status.step / status.total_steps if status.total_steps else 0.0,
        "curve": [value for value in look.curve if math.isfinite(value)],
        "last": text.number(newest.get(curve)),
        "held_out": f"{newest[HELD_OUT_ACCURACY]:.1%}" if HELD_OUT_ACCURACY in newest else text.number(newest.get(f"held_out_{M.REWARDS}")),
        "started": datetime.fromtimestamp(status.created, UTC),
        "time": _rounded((status.updated if status.state.ended else time.time()) - status.created),
        "left": _rounded(look.eta_s if status.state == State.RUNNING else None),
    }


def _rounded(seconds: float | None) -> timedelta | None:
    """To whole seconds; nothing where it is not known."""
    return None if seconds is None or not math.isfinite(seconds) else timedelta(seconds=round(seconds))


def _name(run: Run, spec: dict[str, Any]) -> str:
    """A run's name, with what is to be known before it is opened: that it is a pipeline's stage, whose it is, or that its settings cannot be read."""
    name = text.visible(str(spec.get("name", run.id)))
    notes = [*(["pipeline"] if pipelines.stage_of(run.dir) else []), *([f"{run.owner}’s, read-only"] if run.read_only else [])]
    return " · ".join([name, *notes, *(["settings unreadable"] if problem(run.dir) else [])])


def _actions(run: Run, status: Status) -> list[str]:
    if run.read_only or not access.may_change():
        return []
    if status.state.ended:
        return [] if status.state == State.COMPLETED else [RESUME]
    return [] if status.state == State.STOPPING else [STOP]


def _columns(rows: pd.DataFrame) -> dict[str, Any]:
    """Names are shown whole, and open their run; times are sorted as times."""
    column, widths = st.column_config, WIDTHS[bool(rows["work"].str.len().max() > SHORT_WORK)]
    name_px = int(min(NAME_MAX_PX, max(NAME_PX, 24 + CHARACTER_PX * rows["name"].str.len().max())))
    colours = [text.STATE_COLOURS[state] for state in State]
    return {
        "state": column.MultiselectColumn("State", options=[state.capitalize() for state in State], color=colours, width=92, pinned=True),
        "name": column.ButtonColumn(
            "Name", key="runs-open", on_click=_open_clicked, type="tertiary", alignment="left", width=name_px, pinned=True, help="Opens the run"
        ),
        "actions": column.ButtonColumn("Actions", key="runs-click", on_click=_clicked, width=62),
        "work": column.TextColumn("Algorithm", width=widths["work"], help="The algorithm that trains; of other runs the kind of job"),
        "model": column.TextColumn("Model", width=widths["model"]),
        "progress": column.ProgressColumn("Progress", min_value=0, max_value=100, format="%d%%", width=92),
        "curve": column.LineChartColumn("Curve", width=widths["curve"], help="Training loss, or of a run that learns from rollouts the mean reward"),
        "last": column.TextColumn("Last", width=66, alignment="right", help="The curve's last value"),
        "held_out": column.TextColumn(
            "Held out", width=74, alignment="right", help="Accuracy, or the mean reward, on the held-out rows at the last validation"
        ),
        "started": column.DatetimeColumn("Started", format="distance", width=98),
        "time": column.NumberColumn("Time", format="compact", width=72, help="From the launch until now, or to its end"),
        "left": column.NumberColumn("Left", format="compact", width=72, help="From the median pace of the newest steps"),
    }


def _open_clicked() -> None:
    st.session_state["runs-go"] = (OPEN, st.session_state["runs-shown"][st.session_state["runs-open"]["row"]])


def _clicked() -> None:
    click = st.session_state["runs-click"]
    run_id = st.session_state["runs-shown"][click["row"]]
    if click["label"] in (OPEN, CLONE):
        st.session_state["runs-go"] = (click["label"], run_id)
    else:
        _do(click["label"], [run for run in api.runs() if run.id == run_id])


def _do(action: str, runs: list[Run]) -> None:
    """Stop or resume; what could not be done is said under the table."""
    problems = []
    for run in runs:
        try:
            run.stop() if action == STOP else run.resume()
        except (ValueError, OSError) as error:
            problems.append(str(error))
    st.session_state["runs-problems"] = problems


def _bar(chosen: list[tuple[Run, Status]], shown: int, known: int) -> None:
    """What can be done with the selected rows; without any, with the one whose cell has the focus."""
    if not chosen:
        st.caption(
            f"{shown} of {known} runs in {frame.code(api.runs_root())}. A name opens its run, as does the key O in its row. Select rows to act on several or to compare them."
        )
        return
    live = [run for run, status in chosen if STOP in _actions(run, status)]
    ended = [run for run, status in chosen if RESUME in _actions(run, status)]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{len(chosen)}** selected", width="content")
        if len(chosen) == 1 and st.button("Open", icon=":material/open_in_new:", type="primary", shortcut="O"):
            choose.open_run(chosen[0][0].id)
        if len(chosen) > 1 and st.button("Compare", icon=":material/stacked_line_chart:", type="primary"):
            st.switch_page("pages/compare.py", query_params={"runs": ",".join(run.id for run, _ in chosen)})
        if live and st.button(f"Stop {len(live)}", icon=":material/stop_circle:"):
            _do(STOP, live)
            st.rerun(scope="fragment")
        if ended and st.button(f"Resume {len(ended)}", icon=":material/resume:"):
            _do(RESUME, ended)
            st.rerun(scope="fragment")
        if access.may_change() and len(chosen) == 1 and st.button("Clone", icon=":material/content_copy:"):
            choose.clone(chosen[0][0].id)
