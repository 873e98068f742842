"""Talk to any checkpoint: one, two side by side, or two whose names are hidden until a vote."""

import streamlit as st
from ui import endpoint_panel, frame, studio

PAGE = {"title": "Chat", "icon": "chat", "section": "Try", "order": 56}

st.markdown("## Chat", anchors=False)
served, first = endpoint_panel.draw("chat")
studio.draw("chat", served, first)
frame.note_page("Chat")
