"""The Run page's alarms: what should worry the run's owner now, and what did before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from ui import frame, rollout_panels
from workbench.api import Run
from workbench.views import feed, text


def draw(run: Run) -> None:
    """Alarms that sound, each with the way to what caused it; those that are over, folded."""
    with feed.history(run.dir) as history:
        sounded = list(history.alarms)
    for alarm in (alarm for alarm in reversed(sounded) if "over" not in alarm):
        _sounding(run, alarm)
    if over := [alarm for alarm in reversed(sounded) if "over" in alarm]:
        with st.expander(f"{len(over)} past {'alarm' if len(over) == 1 else 'alarms'}", icon=":material/notifications_off:"):
            for alarm in over:
                lasted = text.duration(alarm["over"] - alarm["time"])
                st.markdown(f"**{_name(alarm)}** :gray[at step {alarm['step']:,}, for {lasted}:] {frame.plain(alarm['message'])}")


def _sounding(run: Run, alarm: Mapping[str, Any]) -> None:
    with st.container(key=f"alarm-{alarm['name'].replace(' ', '-')}", gap="small"):
        st.error(
            f"**{_name(alarm)}** at step {alarm['step']:,}, {text.ago(alarm['time'])}: {frame.plain(alarm['message'])}",
            icon=":material/notifications_active:",
        )
        places = alarm.get("rollouts", ())
        if not places:
            return
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            st.caption("Rollouts to look at:", width="content")
            for index in places:
                if st.button(f"Rollout {index}", icon=":material/forum:", type="tertiary", key=f"alarm-{run.id}-{alarm['seq']}-{index}"):
                    rollout_panels.open_one(run, alarm["step"], index)


def _name(alarm: Mapping[str, Any]) -> str:
    return frame.plain(alarm["name"][:1].upper() + alarm["name"][1:])
