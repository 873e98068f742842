"""The Run page's Controls: what may be changed during the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from ui import frame, run_panels
from workbench.api import Run
from workbench.rundir.lines import Event, Request
from workbench.rundir.opening import Unreadable
from workbench.rundir.store import State
from workbench.settings.stored import spec_tree
from workbench.views import controls, feed, text


def draw(run: Run) -> None:
    """The settings that may change, pausing, and what was asked for so far."""
    status = run.status
    if reason := run.read_only:
        st.info(f"Read-only: {frame.plain(reason)}.", icon=":material/lock:")
        return
    with feed.history(run.dir) as history:
        made, live = list(history.controls), dict(history.live)
    asked = [] if status.state.ended else _waiting(run, made)
    if status.state.ended:
        st.info("The run has ended: nothing can be changed any more.", icon=":material/flag:")
    else:
        _settings(run, live)
        _pausing(run, [*made, *asked], status.state == State.STOPPING)
    if made or asked:
        st.markdown("**Asked for so far**")
        rows = _rows(run, made, asked)
        column = st.column_config
        st.dataframe(
            rows,
            hide_index=True,
            alt="Changes asked for during the run",
            column_config={"Step": column.TextColumn(width=90), "When": column.TextColumn(width=110), "Change": column.TextColumn(width="large")},
        )


def _settings(run: Run, live: Mapping[str, Any]) -> None:
    algorithm = run.spec.algorithm
    now = {name: live.get(name, getattr(algorithm, name)) for name in algorithm.live}
    with st.form(f"controls-{run.id}"):
        st.markdown("**Settings** :gray[taken over at the next step, on every rank, and kept as an event]")
        columns = st.columns(max(3, len(now)))
        typed = {}
        for (name, value), column in zip(now.items(), columns, strict=False):
            described = type(algorithm).model_fields[name].description
            step = 10.0 ** math.floor(math.log10(abs(value))) if value else 0.01
            typed[name] = column.number_input(text.title(name), value=float(value), step=step, format="%g", help=described)
        changed = {name: value for name, value in typed.items() if value != now[name]}
        if st.form_submit_button("Apply at the next step", icon=":material/tune:", type="primary"):
            if changed:
                run_panels.act(lambda: run.change(**changed))
            else:
                st.caption("Nothing was changed.")


def _pausing(run: Run, asked: Sequence[Mapping[str, Any]], stopping: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        if controls.pausing(asked):
            st.markdown("**Paused** :gray[before the next step; the ranks keep their memory]", width="stretch")
            if st.button("Resume", icon=":material/play_arrow:", key=f"unpause-{run.id}", disabled=stopping):
                run_panels.act(run.unpause)
        else:
            st.markdown("**Pause** :gray[holds the run before its next step; nothing is lost]", width="stretch")
            if st.button("Pause", icon=":material/pause:", key=f"pause-{run.id}", disabled=stopping):
                run_panels.act(run.pause)


def _waiting(run: Run, made: Sequence[Event]) -> list[Request]:
    """What was asked for and is not done yet."""
    try:
        return controls.waiting(run.dir, made)
    except Unreadable as error:
        st.error(f"Cannot be read: {frame.plain(str(error))}", icon=":material/error:")
        return []


def _rows(run: Run, made: Sequence[Mapping[str, Any]], asked: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Newest first; a changed setting with the value it had."""
    before = dict(spec_tree(run.dir).get("algorithm", {}))
    rows = []
    for event in (*made, *asked):
        change = controls.WORDS.get(event["request"], text.title(event["request"]))
        if values := event.get("values"):
            change = ", ".join(f"{text.title(name)}: {_shown(before.get(name))} → {_shown(value)}" for name, value in values.items())
            before |= values
        rows.append({"Step": f"{event['step']:,}" if "step" in event else "next", "When": text.clock(event["time"]), "Change": change})
    return rows[::-1]


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else text.visible(str(value))
