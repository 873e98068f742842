"""Nodes, queue, and what my runs use of them; on a machine without SLURM, this machine."""

import streamlit as st
from ui import cluster_panels, frame

from workbench import api

PAGE = {"title": "Cluster", "icon": "dns", "section": "Machines", "order": 60, "needs": "member"}

cluster_panels.style()
places = api.places()
with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
    st.markdown("## Cluster", width="content", anchors=False)
    where: api.Where = places[0]
    if len(places) > 1:
        with st.container(horizontal=True, horizontal_alignment="right"):
            where = st.segmented_control(
                "What to look at", places, default=where, required=True, format_func=cluster_panels.PLACES.__getitem__, label_visibility="collapsed"
            )
frame.refreshed(cluster_panels.draw, cluster_panels.EVERY_S[where])(where)
