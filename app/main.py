"""The pages and the frame around them."""

from pathlib import Path

import streamlit as st
from ui import frame

STATIC = Path(__file__).parent / "static"

st.set_page_config(page_title="Alignment Workbench", page_icon=str(STATIC / "favicon.svg"), layout="wide", initial_sidebar_state="auto")
frame.draw(STATIC)

HOME = "pages/runs.py"


def home() -> None:
    """Streamlit serves the default page at the root only: who asks for /runs is sent there."""
    st.switch_page(HOME)


page = st.navigation(
    {
        "Train": [
            st.Page("pages/launch.py", title="Launch", icon=":material/rocket_launch:", url_path="launch"),
            st.Page(HOME, title="Runs", icon=":material/list_alt:", url_path="home", default=True),
            st.Page(home, url_path="runs", visibility="hidden"),
            st.Page("pages/run.py", title="Run", icon=":material/monitoring:", url_path="run"),
            st.Page("pages/rollouts.py", title="Rollouts", icon=":material/forum:", url_path="rollouts"),
            st.Page("pages/compare.py", title="Compare", icon=":material/stacked_line_chart:", url_path="compare"),
        ],
        "Machines": [st.Page("pages/cluster.py", title="Cluster", icon=":material/dns:", url_path="cluster")],
        "Data": [st.Page("pages/datasets.py", title="Datasets", icon=":material/dataset:", url_path="datasets")],
    }
)
page.run()
