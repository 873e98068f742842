"""One run, live: its numbers, curves, sampled answers, log, checkpoints, settings, and what a reward model's held-out scores tell."""

import streamlit as st
from ui import alarm_panel, charts, choose, control_panel, frame, profile_panel, run_panels

SMOOTHING = {"Off": 0.0, "Light": 0.6, "Medium": 0.9, "Strong": 0.98}

run = choose.run_of_page("Run")
ended = run.status.state.ended
often = None if ended else 2.0
diagnosed = run_panels.diagnosed(run)
frame.refreshed(run_panels.head, 5.0 if ended else 1.0)(run, ended, diagnosed)
frame.refreshed(alarm_panel.draw, often)(run)
names = [
    ":material/show_chart: Curves",
    ":material/forum: Answers",
    ":material/timer: Profile",
    ":material/terminal: Log",
    ":material/save: Checkpoints",
    ":material/tune: Settings",
    ":material/joystick: Controls",
]
tabs = st.tabs([*names, *([":material/troubleshoot: Diagnostics"] if diagnosed else [])], key=f"tab-{run.id}", on_change="rerun")
curves, answers, profile, log, checkpoints, settings, controls = tabs[: len(names)]

with curves:
    with st.container(horizontal=True, gap="medium", vertical_alignment="bottom"):
        smoothing = st.segmented_control(
            "Smoothing", list(SMOOTHING), default="Medium", required=True, help="Exponential moving average: 0.6, 0.9 or 0.98 on the past."
        )
        axis = st.segmented_control("Horizontal axis", ["Step", "Time"], default="Step", required=True)
    charts.draw(run.id, not ended, SMOOTHING[smoothing or "Off"], "time" if axis == "Time" else "step")
with answers:
    if answers.open:
        frame.refreshed(run_panels.answers, often)(run)
with profile:
    if profile.open:
        frame.refreshed(profile_panel.draw, often and 5.0)(run)
with log:
    if log.open:
        frame.refreshed(run_panels.log, often)(run)
with checkpoints:
    if checkpoints.open:
        frame.refreshed(run_panels.checkpoints, often)(run)
with settings:
    if settings.open:
        run_panels.settings(run)
with controls:
    if controls.open:
        frame.refreshed(control_panel.draw, often)(run)
if diagnosed and tabs[-1].open:
    with tabs[-1]:
        frame.refreshed(run_panels.diagnostics, often)(run)
frame.note_page(f"{run.id} · Run")
