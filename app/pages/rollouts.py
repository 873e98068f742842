"""Every answer that a run sampled: found, read token by token, followed over the steps, compared between two."""

import streamlit as st
from ui import choose, frame, rollout_panels

from workbench.rundir import rollouts
from workbench.settings.stored import job, spec_tree

PAGE = {"title": "Rollouts", "icon": "forum", "section": "Train", "order": 40, "needs": "member"}

run = choose.run_of_page("Rollouts", preferred=lambda run: bool(rollouts.steps(run.dir)))
ended = run.status.state.ended
often = None if ended else 2.0
rollout_panels.title(run)
frame.note_page(f"{run.id} · Rollouts")
if not rollouts.steps(run.dir):
    frame.refreshed(rollout_panels.none_yet, often)(run, ended)
    st.stop()

frame.refreshed(rollout_panels.numbers, often)(run, ended)
if job(spec_tree(run.dir)) != "train":  # each prompt is answered at one step
    rollout_panels.browse(run, ended)
    st.stop()
browse, two_steps = st.tabs([":material/table_rows: Browse", ":material/compare: Compare two steps"], key=f"tab-rollouts-{run.id}", on_change="rerun")
with browse:
    if browse.open:
        rollout_panels.browse(run, ended)
with two_steps:
    if two_steps.open:
        frame.refreshed(rollout_panels.compare, often)(run)
