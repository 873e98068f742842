"""One run, live. What the page shows depends on its kind of job: app/ui/kinds/."""

import streamlit as st
from ui import choose, frame, run_panels

PAGE = {"title": "Run", "icon": "monitoring", "section": "Train", "order": 30, "needs": "member"}

run = choose.run_of_page("Run")
ended = run.status.state.ended
view = run_panels.view_of(run)
tabs = view.tabs(run)
frame.refreshed(run_panels.head, 5.0 if ended else 1.0)(run, ended, [tab.label for tab in tabs])
frame.refreshed(run_panels.above_tabs, None if ended else 2.0)(run)
places = st.tabs([tab.label for tab in tabs], key=f"tab-{run.id}", on_change="rerun")
for tab, container in zip(tabs, places, strict=True):
    with container:
        if tab.kept or container.open:
            tab.show(run, ended)
frame.note_page(f"{run.id} · Run")
