"""All runs."""

import streamlit as st
from ui import choose, feed, frame

from workbench import api

for run in api.runs():
    with st.container(horizontal=True):
        frame.state_badge(run.status)
        if st.button(run.id):
            choose.open_run(run.id)
