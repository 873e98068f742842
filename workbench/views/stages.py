"""The stages of a pipeline as people read them: how far each is, how long it took, and what it came to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from workbench import metrics as M
from workbench.rundir.store import RunDir, State, Status
from workbench.settings.stored import spec_tree, work
from workbench.views import catalogue, feed, text

HELD_OUT = "held_out_"
KEY = (f"{HELD_OUT}{M.ACCURACY}", f"{HELD_OUT}{M.REWARDS}", f"{HELD_OUT}{M.LOSS}", M.REWARDS, M.LOSS, M.EXPORT_DIFFERENCE, M.GENERATION_LENGTH)
"""What a stage is judged by: the first of these that it has."""
Colour = Literal["gray", "blue", "green", "orange", "red"]


@dataclass(frozen=True)
class Card:
    """One stage. `share` is how much of it is done, None where nobody knows; `label` and `value` are its key metric, empty without one."""

    state: str
    icon: str
    colour: Colour
    work: str
    share: float | None
    steps: str
    time: str
    label: str
    value: str


def card(run: RunDir | None, status: Status | None, state: State | None, blocked: bool) -> Card:
    """Of a stage's run, where there is one. `state` is None, or it is `blocked`, where the stage waits."""
    waits = state is None or blocked
    shown, icon, colour = _state(state, blocked)
    doing = work(spec_tree(run)) if run else ""
    if run is None or status is None or (waits and not status.step):
        return Card(shown, icon, colour, doing, None if state else 0.0, "", "", "", "")
    total = status.total_steps
    share = status.step / total if total else 1.0 if status.state == State.COMPLETED else None
    seconds = (status.updated if status.state.ended else time.time()) - status.created
    label, value = _key_metric(run, status)
    return Card(shown, icon, colour, doing, share, f"{status.step:,} of {total:,} steps" if total else "", text.duration(seconds), label, value)


def _state(state: State | None, blocked: bool) -> tuple[str, str, Colour]:
    if blocked or state is None:
        return "Waiting", "block" if blocked else "schedule", "gray"
    return state.capitalize(), text.STATE_ICONS[state], text.STATE_COLOURS[state]


def _key_metric(run: RunDir, status: Status) -> tuple[str, str]:
    newest = dict(feed.glance(run, status.total_steps).metrics)
    name = next((each for each in KEY if each in newest), "")
    if not name:
        return "", ""
    metric, value = name.removeprefix(HELD_OUT), newest[name]
    title = catalogue.known(metric).heading
    shown = f"{value:.1%}" if metric == M.ACCURACY else text.number(value)
    return f"{title}, held out" if name.startswith(HELD_OUT) else title, shown
