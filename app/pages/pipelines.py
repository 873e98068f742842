"""Pipelines: jobs in sequence, their stages on one page."""

import streamlit as st
from ui import access, frame, pipeline_panels

PAGE = {"title": "Pipelines", "icon": "account_tree", "section": "Train", "order": 25, "needs": "member"}

st.markdown("## Pipelines", anchors=False)
item = pipeline_panels.chosen()
if item:
    ended = item.status.state.ended
    frame.refreshed(pipeline_panels.draw, None if ended else 1.0)(item, ended)
    frame.note_page(f"{item.id} · Pipelines")
else:
    pipeline_panels.none_yet()
if access.may_change():
    pipeline_panels.launcher()
