"""Several runs in one chart, and the settings in which they differ."""

import streamlit as st
from ui import choose, compare_panels, frame

from workbench import api
from workbench.settings.stored import spec_tree
from workbench.views import tables

PAGE = {"title": "Compare", "icon": "stacked_line_chart", "section": "Train", "order": 50, "needs": "member"}

st.markdown("## Compare runs", anchors=False)
known = {run.id: run for run in api.runs()}
if not known:
    choose.no_runs_yet()
    st.stop()
readable = {run_id: run for run_id, run in known.items() if not choose.unreadable(run)}
named = st.query_params.get("runs")
asked = [run_id for run_id in (named or "").split(",") if run_id]
for run_id in asked:
    if run_id not in known:
        st.error(f"There is no run {frame.code(run_id[:120])} in {frame.code(api.runs_root())}.", icon=":material/search_off:")
    elif reason := choose.unreadable(known[run_id]):
        st.error(frame.sentence(reason), icon=":material/search_off:")
first = [run_id for run_id in asked if run_id in readable]
if named is None:
    first = [run.id for run in readable.values() if run.dir.status.step][:3] or list(readable)[:1]
kept = first if named != st.session_state.get("compare-address") else st.session_state.get("compare-runs", first)
st.session_state["compare-runs"] = [run_id for run_id in kept if run_id in readable]
picked = st.multiselect(
    "Runs",
    list(readable),
    format_func=lambda run_id: compare_panels.label(readable[run_id]),
    key="compare-runs",
    placeholder="Choose runs",
)
if named is None or picked != first:  # an address with runs that are not there stays, with what is said of them, until others are chosen
    st.query_params["runs"] = ",".join(picked)
st.session_state["compare-address"] = st.query_params["runs"]
chosen = [readable[run_id] for run_id in picked]
if not chosen:
    st.info("Choose at least one run.", icon=":material/stacked_line_chart:")
    st.stop()

going = any(not run.dir.status.state.ended for run in chosen)
frame.refreshed(compare_panels.curves, 5.0 if going else None)(chosen)
st.markdown("#### Settings that differ", anchors=False)
diff = tables.config_diff({compare_panels.label(run): spec_tree(run.dir) for run in chosen})
if len(chosen) < 2:
    st.caption("Choose a second run to see what differs.")
elif diff.empty:
    st.caption("These runs have the same settings.")
else:
    st.dataframe(diff, alt="Settings that differ between the runs", column_config={"_index": st.column_config.TextColumn("Setting", width=240)})
