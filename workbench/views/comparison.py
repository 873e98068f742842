"""Several runs beside each other: what can be compared, and where each of them stands."""

from __future__ import annotations

from collections.abc import Iterable

from workbench import metrics as M
from workbench.views import catalogue, figures, text
from workbench.views.history import History

Choice = tuple[str, bool]
"""A metric, and whether it is the held-out rows'."""


def choices(histories: Iterable[History]) -> list[Choice]:
    """The metrics that some run has: of the held-out rows first."""
    known = list(histories)
    held = dict.fromkeys(name for history in known for name in history.validation_metrics)
    train = dict.fromkeys(name for history in known for name in history.metrics)
    return [*((name, True) for name in held), *((name, False) for name in train)]


def first_choice(options: list[Choice]) -> int:
    """The place of what people look at first: the held-out reward, else the loss."""
    return next((options.index(each) for each in ((M.REWARDS, True), (M.LOSS, False)) if each in options), 0)


def label(choice: Choice) -> str:
    """What people call a choice."""
    return f"{catalogue.label(choice[0])}{' (held out)' if choice[1] else ''}"


def standing(name: str, history: History, metric: str, held_out: bool) -> dict[str, str]:
    """A row of the table of standings: how far a run is, and the metric's newest, least and greatest value."""
    steps, values = figures.curve(history, metric, "step", held_out)
    finite = [(value, int(step)) for step, value in zip(steps, values, strict=True) if value == value and abs(value) != float("inf")]
    row = {"Run": name, "Steps": f"{history.steps[-1]:,}" if history.steps else "0"}
    row |= {"Trained for": text.duration(history.elapsed_s[-1]) if history.elapsed_s else "–"}
    row |= {"Last": text.number(float(values[-1])) if len(values) else "–"}
    for word, pick in (("Min", min), ("Max", max)):
        row[word] = f"{text.number(pick(finite)[0])} at step {pick(finite)[1]}" if finite else "–"
    return row
