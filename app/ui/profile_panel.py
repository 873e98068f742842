"""The Run page's Profile: where the seconds of a step go."""

from __future__ import annotations

import streamlit as st

from ui import frame
from workbench.api import Run
from workbench.views import feed, profile, text
from workbench.views.profile import Profile

WINDOWS = {"All steps": None, "Last 20": 20, "Last 5": 5}


def draw(run: Run) -> None:
    """Seconds by phase over the steps, their means and shares, and what the engine and the servers did."""
    with feed.history(run.dir) as history:
        if profile.of(history) is None:
            st.info("The profile appears with the first step.", icon=":material/timer:")
            return
        window = st.segmented_control(
            "Means over", list(WINDOWS), default="All steps", required=True, key=f"profile-window-{run.id}", label_visibility="collapsed"
        )
        measured = profile.of(history, WINDOWS[window or "All steps"])
        figure = profile.figure(history, frame.theme())
    if measured is None:
        st.info("These steps were not timed.", icon=":material/timer_off:")
        return
    _numbers(measured)
    left, right = st.columns([3, 2], gap="medium")
    with left.container(border=True, height="stretch"):
        st.markdown("**Seconds of a step** :gray[by phase]")
        longest = ", ".join(f"{phase.label} {phase.share:.0%}" for phase in measured.phases[:3])
        st.plotly_chart(
            figure, theme=None, config={"displayModeBar": False}, key=f"profile-{run.id}", alt=f"Seconds of each step by phase; mostly {longest}"
        )
    with right.container(border=True, height="stretch"):
        st.markdown(f"**Means** :gray[over {measured.steps:,} {'step' if measured.steps == 1 else 'steps'}]")
        _phases(measured)
    if measured.servers:
        with st.container(border=True):
            st.markdown("**Servers** :gray[seconds of a step's requests, over all ranks; they may overlap with the phases above]")
            _servers(measured)


def _numbers(measured: Profile) -> None:
    """Step, decoding, occupancy and refit as headline numbers: those that the run has."""
    shown = [("A step", f"{text.number(measured.step_s, 3)} s", f"mean of {measured.steps:,}")]
    shown += [(profile.ENGINE[name], profile.measure(name, value), None) for name, value in measured.engine.items()]
    if refit := measured.phase("refit"):
        shown.append(("Refit of the weights", f"{1e3 * refit.seconds:,.2f} ms", f"{refit.share:.2%} of a step"))
    with st.container(key="profile-headline"):
        for column, (label, value, note) in zip(st.columns(max(4, len(shown)), gap="small"), shown, strict=False):
            column.metric(label, value, note, delta_color="off", delta_arrow="off", border=True, height="stretch")


def _phases(measured: Profile) -> None:
    rows = [
        {"Phase": f"{'　· ' if phase.within else ''}{phase.label}", "Seconds": phase.seconds, "Share": 100 * phase.share} for phase in measured.phases
    ]
    column = st.column_config
    st.dataframe(
        rows,
        hide_index=True,
        height="content",
        alt="Mean seconds and share of each phase",
        column_config={
            "Phase": column.TextColumn(width="medium"),
            "Seconds": column.NumberColumn(format="%.3f", width=76),
            "Share": column.ProgressColumn(format="%.1f %%", min_value=0, max_value=100, width=120),
        },
    )


def _servers(measured: Profile) -> None:
    rows = [{"Endpoint": server.endpoint, "In the server": server.server_s, "On the wire": server.wire_s} for server in measured.servers]
    number = st.column_config.NumberColumn(format="%.3f s")
    st.dataframe(
        rows,
        hide_index=True,
        alt="Seconds of each endpoint's requests in a step",
        column_config={"In the server": number, "On the wire": number},
    )
