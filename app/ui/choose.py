"""Which run a page is about, and the way from one page to another."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import NoReturn

import streamlit as st

from ui import access, frame
from workbench import api
from workbench.rundir.opening import Unreadable


def run_of_page(page: str, preferred: Callable[[api.Run], bool] = lambda run: not run.status.state.ended) -> api.Run:
    """The run that the page's address names with `?id=`; where it names none the newest that is preferred, else the newest.

    Without any run the page has its own name as its heading, says how to make one, and ends.
    """
    known = api.runs()
    wanted = st.query_params.get("id")
    if wanted:
        match = next((run for run in known if run.id == wanted), None)
        if match is None:
            _refuse(page, f"There is no run {frame.code(wanted[:120])} in {frame.code(api.runs_root())}.")
        return _readable(page, match)
    if not known:
        st.markdown(f"## {page}", anchors=False)
        no_runs_yet()
        st.stop()
    readable = [run for run in known if not unreadable(run)]
    run = next(filter(preferred, readable), (readable or known)[0])
    st.query_params["id"] = run.id
    return _readable(page, run)


def unreadable(run: api.Run) -> str:
    """Why the run cannot be shown, in a sentence: its status is damaged or another's, or a newer version made it. Empty where it can be."""
    try:
        _ = run.status
    except Unreadable as error:
        return str(error)
    return ""


def _readable(page: str, run: api.Run) -> api.Run:
    """The run; where it cannot be read the page says so and why, and ends."""
    if reason := unreadable(run):
        _refuse(page, frame.sentence(reason))
    return run


def _refuse(page: str, reason: str) -> NoReturn:
    """A page that cannot show its run: its name, the reason, and the way to the others."""
    st.markdown(f"## {page}", anchors=False)
    st.error(reason, icon=":material/search_off:")
    st.page_link("pages/runs.py", label="All runs", icon=":material/list_alt:")
    st.stop()


def no_runs_yet() -> None:
    """What a newcomer sees in place of an empty page."""
    with st.container(border=True, horizontal_alignment="center", key="empty"):
        st.markdown("### No runs yet", anchors=False, text_alignment="center")
        st.markdown(
            "A run trains one model on one data set with one algorithm. The demo aligns a 135-million-parameter model"
            " on this machine's processor and needs no download: open **Launch**, keep its settings, and press **Launch run**.",
            text_alignment="center",
            width=560,
        )
        if access.may_change():
            st.page_link("pages/launch.py", label="Launch the first run", icon=":material/rocket_launch:")
        st.caption("Or in a terminal:" if access.may_change() else "In the owner's terminal:", text_alignment="center")
        st.code("workbench run experiment=dpo_demo", language="bash", width=360)
        st.caption(f"Runs are read from {frame.code(api.runs_root())}.", text_alignment="center")


def open_run(run_id: str) -> None:
    st.switch_page("pages/run.py", query_params={"id": run_id})


def open_pipeline(pipeline_id: str) -> None:
    st.switch_page("pages/pipelines.py", query_params={"id": pipeline_id})


def clone(run_id: str) -> None:
    st.switch_page("pages/launch.py", query_params={"clone": run_id})


def launch_with(kind: str, checkpoint: str) -> None:
    """Open Launch for a job on a checkpoint."""
    st.switch_page("pages/launch.py", query_params={"job": kind, "checkpoint": checkpoint})


NEW_PIPELINE = "filled-pipeline"
"""What the launcher of pipelines is to be filled with, in the visitor's session: no link from elsewhere can fill it."""


def open_new_pipeline(name: str, overrides: Sequence[str]) -> None:
    """Open the launcher of pipelines, filled."""
    st.session_state[NEW_PIPELINE] = (name, shlex.join(overrides))
    st.switch_page("pages/pipelines.py")


def cloned_run() -> api.Run | None:
    """The run whose settings Launch starts from: `?clone=`."""
    wanted = st.query_params.get("clone")
    if not wanted:
        return None
    match = next((run for run in api.runs() if run.id == wanted), None)
    if match is None:
        st.warning(f"There is no run {frame.code(wanted[:120])} to clone.", icon=":material/search_off:")
        return None
    if reason := unreadable(match):
        st.warning(frame.sentence(reason), icon=":material/search_off:")
        return None
    return match
