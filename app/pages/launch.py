"""Set up a run: choose, change, check, launch."""

import copy

import streamlit as st
from ui import choose, form, frame, preflight_panel, setup

from workbench import api
from workbench.settings import command_line, spec
from workbench.settings.composing import SpecError

PAGE = {"title": "Launch", "icon": "rocket_launch", "section": "Train", "order": 10}
SOURCES_S = 0.5
"""How long a redrawn form waits for what a thread finds out about data and models."""

with st.container(horizontal=True, vertical_alignment="center"):
    st.markdown("## Launch a run", anchors=False, width="content")
    with st.container(horizontal=True, horizontal_alignment="right"):
        st.page_link("pages/pipelines.py", label="Several in sequence: a pipeline", icon=":material/account_tree:")
source = choose.cloned_run()
start = setup.start(source)
left, right = st.columns([5, 3], gap="large")

with left:
    with st.container(border=True):
        overrides, tree = setup.choose(start)
    made = form.Form(key=lambda name: setup.widget_key(start, overrides, name))
    values = made.draw(copy.deepcopy(tree))
if made.unknown:
    left.warning(f"This version has no such setting, so it is left out: {', '.join(map(frame.code, made.unknown))}", icon=":material/warning:")

experiment = None
try:
    experiment = api.with_checkpoint(spec.parse(values))
    checked = api.check_sources(experiment, wait_s=SOURCES_S)
except SpecError as error:
    checked = api.SourceCheck(error.problems, [])
problems, pending = checked.problems, checked.pending
made.show(problems)
if experiment is not None and experiment.backend.name == "local":
    api.keep_warm()

with right, st.container(key="summary"):
    if problems:
        listed = "\n".join(f"- {frame.code(key or 'experiment')}: {frame.plain(what)}" for key, what in problems)
        st.error(
            f"**{len(problems)} {'problem' if len(problems) == 1 else 'problems'} to solve before the launch**\n\n{listed}", icon=":material/error:"
        )
    elif pending:
        st.info(f"Checking {', '.join(map(frame.code, pending))} …", icon=":material/hourglass_top:")
    else:
        st.success("Every setting is valid.", icon=":material/check_circle:")
    if experiment is not None and pending:
        frame.refreshed(setup.rerun_when_checked, 1.0)(experiment, pending)
    if problems:
        experiment = None
    if experiment is not None and experiment.backend.name != "local":
        preflight_panel.draw(experiment)
    if (
        st.button("Launch run", key="launch", type="primary", icon=":material/rocket_launch:", width="stretch", disabled=experiment is None)
        and experiment is not None
    ):
        try:
            choose.open_run(api.submit(experiment).id)
        except (ValueError, OSError) as error:
            st.error(f"The launch failed: {frame.plain(str(error))}", icon=":material/error:")
    st.markdown("**The same from a terminal**")
    st.code(command_line.command(overrides, values), language="bash", wrap_lines=True)
    st.markdown("**Resolved settings**")
    st.code(command_line.as_yaml(experiment) if experiment else "# shown when every setting is valid", language="yaml", wrap_lines=True)
