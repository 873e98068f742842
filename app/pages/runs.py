"""All runs: find one, see how it goes, act on it."""

import streamlit as st
from ui import access, choose, frame, run_table

from workbench import api

PAGE = {"title": "Runs", "icon": "list_alt", "section": "Train", "order": 20, "home": True, "needs": "member"}

st.markdown("## Runs", anchors=False)
if not api.runs():
    choose.no_runs_yet()
    st.stop()

with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
    query = st.text_input(
        "Search",
        placeholder="name, id, job, algorithm, model",
        key="runs-search",
        live=True,
        width=320,
        icon=":material/search:",
        bind="query-params",
    )
    states = st.pills("State", list(run_table.FILTERS), selection_mode="multi", key="runs-state")
    if access.may_change():
        with st.container(horizontal=True, horizontal_alignment="right"):
            st.page_link("pages/launch.py", label="New run", icon=":material/add:")
frame.refreshed(run_table.draw, 2.0)(query or "", tuple(states or ()))
