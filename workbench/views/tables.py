"""Rows of the run list and of the comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.rundir.store import Status
from workbench.views import text
from workbench.views.history import History


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """A nested mapping flattened to dotted keys."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {key: value for name, part in tree.items() for key, value in leaves(part, f"{prefix}.{name}" if prefix else name).items()}


def config_diff(trees: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row a key whose value is not the same in all the trees, one column a tree; a dash where a tree has no such key."""
    flat = {name: leaves(tree) for name, tree in trees.items()}
    keys = dict.fromkeys(key for tree in flat.values() for key in tree)
    rows = {key: [_show(tree.get(key, _ABSENT)) for tree in flat.values()] for key in keys}
    differing = {key: row for key, row in rows.items() if len(set(row)) > 1}
    return pd.DataFrame.from_dict(differing, orient="index", columns=pd.Index(list(flat)))


def followed(validations: Sequence[Any]) -> dict[str, dict[int, str]]:
    """Each sampled prompt with its answers by step: how the model's answer changed."""
    prompts: dict[str, dict[int, str]] = {}
    for validation in validations:
        for sample in validation.samples:
            prompts.setdefault(sample["prompt"], {})[validation.step] = sample["response"]
    return prompts


_ABSENT = object()


def _show(value: Any) -> str:
    if value is _ABSENT:
        return "–"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Figure:
    """One number of a run's headline: what it is, its value, what it is compared with, and its last values for a spark line."""

    label: str
    value: str
    note: str = ""
    help: str = ""
    curve: tuple[float, ...] = ()


RECENT = 60


_ONLINE = (
    ("rewards", "Reward", "Mean reward of the last step's answers; below it, the change over the last steps."),
    ("init_policy_kl", "KL", "From the reference policy, in nats an answer, over the last step's answers."),
)
_OFFLINE = (
    ("loss", "Loss", "Training loss of the last step; below it, the change over the last steps."),
    ("rewards_margin", "Reward margin", "Reward of the chosen answers above the rejected ones."),
)


def headline(history: History, status: Status) -> list[Figure]:
    """What the run has of: reward and KL, or loss and margin; the held-out reward, accuracy or loss; speed, step and time left."""
    figures = [
        Figure(label, text.number(values[-1]), _trend(values), words, _recent(values))
        for name, label, words in (_ONLINE if "rewards" in history.metrics else _OFFLINE)
        if (values := history.metrics.get(name))
    ]
    held = next((name for name in ("rewards", "accuracy", "loss") if name in history.validation_metrics), None)
    if held:
        values = [v.metrics[held] for v in history.validations if held in v.metrics]
        now, first = (f"{value:.1%}" if held == "accuracy" else text.number(value) for value in (values[-1], values[0]))
        words = f"Measured on the held-out rows at step {history.validations[-1].step}."
        name = "reward" if held == "rewards" else held
        figures.insert(1, Figure(f"Held-out {name}", now, f"from {first}", words, tuple(values[-RECENT:])))
    if speed := history.metrics.get("tokens_per_s"):
        pace = history.last("step_time_s")
        figures.append(
            Figure(
                "Tokens / s", text.number(speed[-1]), f"{pace:.2f} s a step" if pace else "", "Training throughput over all ranks.", _recent(speed)
            )
        )
    total = history.total_steps or status.total_steps
    step = history.steps[-1] if history.steps else status.step
    figures.append(Figure("Step", f"{step:,}", f"of {total:,} · {step / total:.0%}" if total else "", "Optimizer steps done."))
    spent = history.elapsed_s[-1] if history.elapsed_s else None
    left = None if status.state.ended else text.eta_s(history.steps, history.elapsed_s, total)
    trained = f"{text.duration(spent)} trained" if spent is not None else ""
    if status.state.ended:
        figures.append(Figure("Trained for", text.duration(spent), "", "Time in training, pauses left out."))
    else:
        figures.append(Figure("Time left", text.duration(left), trained, "From the median pace of the newest steps."))
    return figures


def _recent(column: Sequence[float]) -> tuple[float, ...]:
    return tuple(value for value in column[-RECENT:] if math.isfinite(value))


def _trend(column: Sequence[float], window: int = 10) -> str:
    """The mean of the newest steps against that of as many before."""
    newest, before = _recent(column[-window:]), _recent(column[-2 * window : -window])
    if len(before) < window or not newest:
        return ""
    change = sum(newest) / len(newest) - sum(before) / len(before)
    return f"{'+' if change >= 0 else '−'}{text.number(abs(change), 3)}"
