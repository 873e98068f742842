"""Set attributes by sliders and watch the answers change: several checkpoints and settings side by side."""

import streamlit as st
from ui import endpoint_panel, frame, steering_panels, studio

PAGE = {"title": "Steer", "icon": "tune", "section": "Try", "order": 54}

st.markdown("## Steer", anchors=False)
served, first = endpoint_panel.draw("steer")
answers, adherence = st.tabs([":material/forum: Answers", ":material/target: Adherence and leakage"], key="tab-steer", on_change="rerun")
with answers:
    if answers.open and (targets := studio.draw("steer", served, first)):
        studio.launch(targets)
with adherence:
    if adherence.open:
        steering_panels.draw()
frame.note_page("Steer")
