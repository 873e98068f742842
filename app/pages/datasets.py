"""Look at a data set before training on it: counts, lengths, what is malformed, and the rows with what is learnt in colour."""

import streamlit as st
from ui import data_panels, frame

PAGE = {"title": "Datasets", "icon": "dataset", "section": "Data", "order": 70}

st.markdown("## Datasets", anchors=False)
try:
    asked = data_panels.ask()
except ValueError as error:
    data_panels.refused(str(error))
    st.stop()
if asked is None:
    data_panels.nothing_asked()
    st.stop()
assert asked is not None
try:
    with st.spinner("Reading and encoding the rows …", show_time=True):
        report = data_panels.check(asked)
except ValueError as error:
    data_panels.refused(str(error))
    st.stop()

data_panels.counts(report)
data_panels.notes(report)
lengths, rows, bad = st.tabs(
    [":material/bar_chart: Lengths", ":material/forum: Rows", f":material/report: Malformed ({report.bad:,})"], key="data-tab", on_change="rerun"
)
with lengths:
    data_panels.lengths(report)
with rows:
    if rows.open:
        data_panels.rows(asked, report)
with bad:
    data_panels.malformed(report)
frame.note_page("Datasets")
