"""From a run's page to a notebook: the cell to paste."""

from __future__ import annotations

import streamlit as st

from ui import frame
from workbench.api import Run


def draw(run: Run) -> None:
    """A button that opens the cell."""
    with st.popover("Notebook", icon=":material/book_2:", help="Open in a notebook"):
        st.markdown("**Open in a notebook**: paste this into a cell.")
        st.code(f'import workbench as wb\n\nrun = wb.attach("{run.id}")', language="python")
        st.caption(f"`make notebooks` opens JupyterLab on this folder of runs; elsewhere set {frame.code(f'WORKBENCH_RUNS={run.dir.path.parent}')}.")
