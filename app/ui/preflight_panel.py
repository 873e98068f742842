"""The Launch form's checks on the cluster: what would keep the run from starting, without submitting it."""

from __future__ import annotations

import streamlit as st

from ui import frame
from workbench import api

ICONS = {"ok": ":green[:material/check_circle:]", "warning": ":orange[:material/warning:]", "error": ":red[:material/error:]"}


def draw(experiment: api.Experiment) -> None:
    """A button, and what the checks of exactly these settings told. Launching makes the quick ones again by itself."""
    with st.container(border=True, key="preflight"):
        st.markdown("**Before it is submitted**")
        with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
            asked = st.button(
                "Check on the cluster", icon=":material/fact_check:", help="Does it fit the nodes, where do the files lie, when would it start?"
            )
            on_node = experiment.backend.name == "slurm" and st.toggle(
                "Try a node", key="preflight-on-node", help="Also starts Python on one of the nodes. It waits in the queue for it."
            )
        key = f"{experiment.to_yaml()}{on_node}"
        if asked:
            try:
                with st.spinner("Asking the cluster …", show_time=True):
                    st.session_state["preflight"] = key, api.preflight(experiment, on_node)
            except (ValueError, OSError) as error:
                st.error(frame.plain(str(error)), icon=":material/error:")
                return
        known, problems = st.session_state.get("preflight", ("", []))
        if known != key:
            st.caption("Nodes, files and expected start, for the settings as they are now.")
            return
        for each in problems:
            st.markdown(f"{ICONS[each.level]} **{frame.plain(each.name)}** {frame.plain(each.message)}")
