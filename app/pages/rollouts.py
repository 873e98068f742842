"""Every answer that a run sampled: found, read token by token, followed over the steps, compared between two."""

import streamlit as st
from ui import choose, frame, rollout_panels

from workbench.rundir import rollouts

run = choose.run_of_page("Rollouts", preferred=lambda run: bool(rollouts.steps(run.dir)))
ended = run.status.state.ended
often = None if ended else 2.0
rollout_panels.title(run)
frame.note_page(f"{run.id} · Rollouts")
if not rollouts.steps(run.dir):
    frame.refreshed(rollout_panels.none_yet, often)(run, ended)
    st.stop()

frame.refreshed(rollout_panels.numbers, often)(run, ended)
browse, two_steps = st.tabs([":material/table_rows: Browse", ":material/compare: Compare two steps"], key=f"tab-rollouts-{run.id}", on_change="rerun")
with browse:
    if browse.open:
        frame.refreshed(rollout_panels.table, None if ended else 1.0)(run)
        frame.refreshed(rollout_panels.chosen)(run)
with two_steps:
    if two_steps.open:
        frame.refreshed(rollout_panels.compare, often)(run)
