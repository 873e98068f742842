"""The frame around the pages, and the navigation between them."""

from pathlib import Path

import streamlit as st
from ui import access, frame, navigation

HERE = Path(__file__).parent
STATIC = HERE / "static"

st.set_page_config(page_title="Alignment Workbench", page_icon=str(STATIC / "favicon.svg"), layout="wide", initial_sidebar_state="auto")
frame.draw(STATIC)
frame.note_viewer(access.viewer())
st.navigation(navigation.pages(HERE / "pages")).run()
