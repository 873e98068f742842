"""Rows of the run list and of the comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from workbench import metrics as M
from workbench.metrics import Metric
from workbench.rundir.store import Status
from workbench.settings.composing import leaves
from workbench.views import catalogue, text
from workbench.views.history import History, Validation, numbers
from workbench.views.text import Figure


def config_diff(specs: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    """One row a key whose value is not the same in all the specs, one column a spec; a dash where a spec has no such key."""
    flat = {name: dict(leaves(tree)) for name, tree in specs.items()}
    keys = dict.fromkeys(key for tree in flat.values() for key in tree)
    rows = {key: [_show(tree.get(key, _ABSENT)) for tree in flat.values()] for key in keys}
    differing = {key: row for key, row in rows.items() if len(set(row)) > 1}
    return pd.DataFrame.from_dict(differing, orient="index", columns=pd.Index(list(flat)))


def followed(validations: Sequence[Validation]) -> dict[str, dict[int, str]]:
    """Each sampled prompt with its answers by step: how the model's answer changed."""
    prompts: dict[str, dict[int, str]] = {}
    for validation in validations:
        for sample in validation.samples:
            prompts.setdefault(sample["prompt"], {})[validation.step] = sample["response"]
    return prompts


_ABSENT = object()


def _show(value: object) -> str:
    if value is _ABSENT:
        return "–"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


RECENT = 60


_ONLINE = (M.REWARDS, M.INIT_POLICY_KL)
_OFFLINE = (M.LOSS, M.REWARDS_MARGIN)
_HELD_OUT = (M.REWARDS, M.ACCURACY, M.LOSS)
"""What a headline leads with; of the held-out metrics the first that there is."""


def headline(history: History, status: Status) -> list[Figure]:
    """What the run has of: reward and KL, or loss and margin; the held-out reward, accuracy or loss; speed, step and time left."""
    figures = [
        Figure(brief(metric), text.number(values[-1]), _trend(values), metric.help, _recent(values))
        for metric in (_ONLINE if M.REWARDS in history.metrics else _OFFLINE)
        if (values := history.metrics.get(metric))
    ]
    held = next((metric for metric in _HELD_OUT if metric in history.validation_metrics), None)
    if held:
        values = [v.metrics[held] for v in history.validations if held in v.metrics]
        now, first = (value_of(held, value) for value in (values[-1], values[0]))
        help_text = f"{held.help} Measured on the held-out rows at step {history.validations[-1].step}."
        figures.insert(1, Figure(f"Held-out {held.brief}", now, f"from {first}", help_text, tuple(values[-RECENT:])))
    total = history.total_steps or status.total_steps
    step = history.steps[-1] if history.steps else status.step
    done = Figure("Step", f"{step:,}", f"of {total:,} · {step / total:.0%}" if total else "", "Optimizer steps done.")
    *speed, time = pace(history, status, "Trained")
    return [*figures, *speed, done, time]


def pace(history: History, status: Status, did: str) -> list[Figure]:
    """The speed, where it was measured, and the time: left, or of a run that has ended spent. `did` is what the run does, as in Trained."""
    figures = []
    if speed := history.metrics.get(M.TOKENS_PER_S):
        step_s = history.last(M.STEP_TIME_S)
        note = f"{step_s:.2f} s a step" if step_s else ""
        figures.append(Figure(brief(M.TOKENS_PER_S), text.number(speed[-1]), note, M.TOKENS_PER_S.help, _recent(speed)))
    spent = history.elapsed_s[-1] if history.elapsed_s else None
    if status.state.ended:
        return [*figures, Figure(f"{did} for", text.duration(spent), "", "Time in its steps, without pauses.")]
    left = text.eta_s(history.steps, history.elapsed_s, history.total_steps or status.total_steps)
    so_far = f"{text.duration(spent)} {did.lower()}" if spent is not None else ""
    return [*figures, Figure("Time left", text.duration(left), so_far, "From the median pace of the newest steps.")]


def value_of(metric: Metric, value: float) -> str:
    """A metric's value in a headline."""
    return f"{value:.1%}" if metric == M.ACCURACY else text.number(value)


def brief(metric: Metric) -> str:
    """What a headline calls a metric."""
    return metric.brief[:1].upper() + metric.brief[1:]


@dataclass(frozen=True)
class Measured:
    """A metric's newest values, of the steps and on the held-out rows, and what it is; None where it was not measured."""

    name: str
    title: str
    unit: str
    step: float | None
    held_out: float | None
    help: str


def measured(steps: Mapping[str, object], held_out: Mapping[str, object]) -> list[Measured]:
    """One row a metric, in the order in which the Run page has their charts."""
    drawn = [name for chart in catalogue.charts([*steps, *held_out]) for name, _ in chart.series]
    names = dict.fromkeys([*drawn, *steps, *held_out])
    columns = numbers(steps), numbers(held_out)
    return [
        Measured(name, catalogue.label(name), catalogue.unit(name), columns[0].get(name), columns[1].get(name), catalogue.explained(name))
        for name in names
    ]


_AGAINST = (M.REWARDS_MARGIN, M.OPPONENT_WIN_RATE, M.LOGPROBS_CHOSEN)


def references(history: History) -> list[dict[str, object]]:
    """One row for each reference that the policy had: which weights they are, from which step on, and what was last measured against it on held-out rows."""
    rows: list[dict[str, object]] = []
    for each, following in zip(history.references, [*history.references, None][1:], strict=True):
        measured = [v for v in history.validations if v.step > each["step"] and (following is None or v.step <= following["step"])]
        last = measured[-1].metrics if measured else {}
        held_out = {f"Held-out {catalogue.label(name).lower()}": last.get(name) for name in _AGAINST}
        rows.append({"Reference": each["version"], "Weights": each["digest"], "From step": each["step"] + 1, **held_out})
    return rows


def _recent(column: Sequence[float]) -> tuple[float, ...]:
    return tuple(value for value in column[-RECENT:] if math.isfinite(value))


def _trend(column: Sequence[float], window: int = 10) -> str:
    """The mean of the newest steps against that of as many before."""
    newest, before = _recent(column[-window:]), _recent(column[-2 * window : -window])
    if len(before) < window or not newest:
        return ""
    change = sum(newest) / len(newest) - sum(before) / len(before)
    return f"{'+' if change >= 0 else '−'}{text.number(abs(change), 3)}"
