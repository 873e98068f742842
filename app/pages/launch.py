"""Set up a run: choose, change, check, launch."""

import copy

import streamlit as st
from ui import choose, form, frame, preflight_panel, setup

from workbench import api
from workbench.settings import spec
from workbench.settings.composing import SpecError
from workbench.views.tables import leaves

PAGE = {"title": "Launch", "icon": "rocket_launch", "section": "Train", "order": 10}

st.markdown("## Launch a run", anchors=False)
source = choose.cloned_run()
start = setup.start(source)
left, right = st.columns([5, 3], gap="large")

with left:
    with st.container(border=True):
        words, tree = setup.choose(start)
    made = form.Form(key=lambda name: setup.widget_key(start, words, name))
    values = made.draw(copy.deepcopy(tree))
if dropped := sorted(leaves(tree).keys() - leaves(values).keys()):
    left.warning(f"This version has no such setting, so it is left out: {', '.join(map(frame.code, dropped))}", icon=":material/warning:")

experiment = None
try:
    parsed = spec.parse(values)
    parsed = api.with_checkpoint(parsed)
    parsed.check_files()
    experiment, problems = parsed, []
except SpecError as error:
    problems = error.problems
made.show(problems)

with right, st.container(key="summary"):
    if problems:
        listed = "\n".join(f"- {frame.code(key or 'experiment')}: {frame.plain(what)}" for key, what in problems)
        st.error(
            f"**{len(problems)} {'problem' if len(problems) == 1 else 'problems'} to solve before the launch**\n\n{listed}", icon=":material/error:"
        )
    else:
        st.success("Every setting is valid.", icon=":material/check_circle:")
    if experiment is not None and experiment.backend.name != "local":
        preflight_panel.draw(experiment)
    if (
        st.button("Launch run", type="primary", icon=":material/rocket_launch:", width="stretch", disabled=experiment is None)
        and experiment is not None
    ):
        try:
            choose.open_run(api.submit(experiment).id)
        except (ValueError, OSError) as error:
            st.error(f"The launch failed: {frame.plain(str(error))}", icon=":material/error:")
    st.markdown("**The same from a terminal**")
    st.code(setup.command(words, values), language="bash", wrap_lines=True)
    st.markdown("**Resolved settings**")
    st.code(setup.as_yaml(experiment) if experiment else "# appear when every setting is valid", language="yaml", height=430)
