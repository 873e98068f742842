"""The pages and the frame around them."""

from pathlib import Path

import streamlit as st
from ui import frame

STATIC = Path(__file__).parent / "static"

st.set_page_config(page_title="Alignment Workbench", page_icon=str(STATIC / "favicon.svg"), layout="wide", initial_sidebar_state="expanded")
frame.draw(STATIC)
page = st.navigation(
    {
        "Train": [
            st.Page("pages/launch.py", title="Launch", icon=":material/rocket_launch:", url_path="launch"),
            st.Page("pages/runs.py", title="Runs", icon=":material/list_alt:", url_path="runs", default=True),
            st.Page("pages/run.py", title="Run", icon=":material/monitoring:", url_path="run"),
            st.Page("pages/rollouts.py", title="Rollouts", icon=":material/forum:", url_path="rollouts"),
            st.Page("pages/compare.py", title="Compare", icon=":material/stacked_line_chart:", url_path="compare"),
        ],
        "Machines": [st.Page("pages/cluster.py", title="Cluster", icon=":material/dns:", url_path="cluster")],
        "Data": [st.Page("pages/datasets.py", title="Datasets", icon=":material/dataset:", url_path="datasets")],
    }
)
page.run()
