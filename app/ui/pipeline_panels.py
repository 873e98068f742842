"""Pipelines on their page: which one, its stages side by side, what can be asked of it, and a new one."""

from __future__ import annotations

import shlex
import time

import streamlit as st

from ui import access, choose, frame
from ui.run_panels import act
from workbench import api
from workbench.api import Pipeline, PipelineStatus, StageStatus
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import State
from workbench.settings import pipeline as pipelines
from workbench.settings.composing import SpecError
from workbench.views import stages, text

IN_A_ROW = 4


def chosen() -> Pipeline | None:
    """The pipeline that the address names with `?id=`, or that is chosen here; None where there is none. One that cannot be read is said so."""
    known = {item.id: item for item in api.pipelines()}
    wanted = st.query_params.get("id")
    if wanted and wanted not in known:
        st.error(f"There is no pipeline {frame.code(wanted[:120])} in {frame.code(api.runs_root())}.", icon=":material/search_off:")
        return None
    if not known:
        return None
    listed = list(known)
    picked = st.selectbox(
        "Pipeline", listed, index=listed.index(wanted) if wanted else 0, format_func=lambda each: _label(known[each]), key="pipeline", width=560
    )
    if picked != wanted and (wanted or picked != listed[0]):
        st.query_params["id"] = picked
    item = known[picked]
    try:
        _ = item.status
    except (Unreadable, SpecError) as error:
        st.error(frame.sentence(str(error)), icon=":material/error:")
        return None
    return item


def _label(item: Pipeline) -> str:
    try:
        return f"{item.plan.name} · {text.clock(item.plan.created)} · {item.id}"
    except Unreadable:
        return item.id


def draw(item: Pipeline, ended: bool) -> None:
    """Its name, state and buttons; then a card a stage."""
    status = item.status
    if status.state.ended != ended:
        st.rerun()
    title, buttons = st.columns([3, 2], vertical_alignment="center")
    with title, st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"### {frame.plain(item.plan.name)}", width="content", anchors=False)
        st.badge(status.state.capitalize(), icon=f":material/{text.STATE_ICONS[status.state]}:", color=text.STATE_COLOURS[status.state])
    with buttons, st.container(horizontal=True, horizontal_alignment="right", gap="small"):
        if access.may_change() and not item.read_only:
            _buttons(item, status)
    attempt = f" · attempt {status.attempt}" if status.attempt > 1 else ""
    took = f"took {text.duration(status.updated - status.created)}" if status.state.ended else f"for {text.duration(time.time() - status.created)}"
    if item.plan.description:
        st.markdown(frame.plain(item.plan.description))
    done = f"{status.step} of {len(status.stages)} stages complete"
    st.caption(f"{frame.code(item.id)} · {done} · started {text.clock(status.created)} · {took}{attempt}")
    if status.message and status.state == State.FAILED:
        st.error(frame.sentence(status.message.rstrip(".")), icon=":material/error:")
    elif status.message:
        st.info(frame.sentence(status.message.rstrip(".")), icon=":material/info:")
    if reason := item.read_only:
        st.info(f"Read-only: {frame.plain(reason)}. Nothing of it can be changed here.", icon=":material/lock:")
    columns = min(IN_A_ROW, len(status.stages))
    for first in range(0, len(status.stages), columns):
        row = status.stages[first : first + columns]
        for number, (stage, column) in enumerate(zip(row, st.columns(columns, gap="small"), strict=False), first + 1):
            with column:
                _card(stage, number)


def _buttons(item: Pipeline, status: PipelineStatus) -> None:
    left = status.orphaned or (status.state.ended and status.state != State.COMPLETED)
    way = "Continue at the stage that failed or was stopped, from its latest valid checkpoint."
    if left and st.button("Resume", icon=":material/resume:", type="primary", help=way):
        act(item.resume)
    if not status.state.ended and st.button(
        "Stop",
        icon=":material/stop_circle:",
        disabled=status.state == State.STOPPING,
        help="Launch no further stage; the one that runs saves a checkpoint and ends. Resume continues from there.",
    ):
        act(item.stop)


def _card(stage: StageStatus, number: int) -> None:
    shown = stages.card(stage.run.dir if stage.run else None, stage.status, stage.state, stage.blocked)
    with st.container(border=True, height="stretch", gap="small", key=f"stage-{stage.run_id}"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"**{number}. {frame.plain(stage.name)}**", width="content")
            st.badge(shown.state, icon=f":material/{shown.icon}:", color=shown.colour)
        of = " · ".join(filter(None, (shown.work, shown.steps, shown.time)))
        st.caption(frame.plain(of) if of else f"after {', '.join(stage.needs)}" if stage.needs else "first")
        if shown.share is not None:
            st.progress(min(1.0, shown.share))
        if shown.value:
            st.markdown(f"{frame.plain(shown.label)}: **{frame.plain(shown.value)}**")
        if stage.message and stage.state != State.COMPLETED:
            st.caption(frame.sentence(stage.message.partition("\n")[0].rstrip(".")))
        if stage.run:
            st.page_link("pages/run.py", label="Open the run", icon=":material/monitoring:", query_params={"id": stage.run_id})


def launcher() -> None:
    """Choose a pipeline, change what is to be changed by words, and launch it."""
    names = pipelines.shipped()
    if filled := st.session_state.pop(choose.NEW_PIPELINE, None):
        st.session_state["new-pipeline-name"], st.session_state["new-pipeline-words"] = filled
    with st.container(border=True, key="new-pipeline"):
        left, right = st.columns([2, 3], gap="medium")
        name = left.selectbox(
            "Start a pipeline",
            names,
            key="new-pipeline-name",
            help="A file in `conf/pipeline/`. Your own is launched from a terminal by its path.",
        )
        typed = right.text_input(
            "Changed settings",
            key="new-pipeline-words",
            placeholder="seed=3 backend=slurm train.algorithm.lr=1e-4",
            help="Words as on the command line: of all stages, or of one where its name comes first.",
        )
        st.caption(frame.plain(pipelines.read(name).description))
        overrides = _overrides(typed)
        st.code(shlex.join(["workbench", "run", f"pipeline={name}", *overrides]), language="bash", wrap_lines=True)
        if st.button("Launch pipeline", type="primary", icon=":material/rocket_launch:", key="launch-pipeline"):
            try:
                launched = api.submit_pipeline(name, overrides)
            except (ValueError, OSError) as error:
                lines = "\n".join(f"- {frame.plain(line)}" for line in str(error).splitlines())
                st.error(f"**The launch failed.**\n\n{lines}", icon=":material/error:")
            else:
                choose.open_pipeline(launched.id)


def _overrides(typed: str) -> list[str]:
    try:
        return shlex.split(typed)
    except ValueError:  # a quote that is not closed: as it is, which the launch refuses
        return typed.split()


def none_yet() -> None:
    """What stands in place of the stages where nothing was launched."""
    st.info(
        "A pipeline is several jobs in sequence: each stage is a run, uses what earlier ones made, and begins when they are complete."
        " Start one here, or in a terminal: `workbench run pipeline=export_demo`.",
        icon=":material/account_tree:",
    )
