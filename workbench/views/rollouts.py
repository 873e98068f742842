"""Rollouts for people: the tokens of an answer in the colours of a quantity, the rewards over the steps, a step's headline."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.rundir.rollouts import COMPONENT
from workbench.views import text
from workbench.views.figures import LIGHT, Theme, rgba, style
from workbench.views.tables import Figure

Values = Sequence[float | None]
FEW_STEPS = 8
STRONGEST = 0.6
"""Opacity of the strongest colour: dark text on it, or light text in the dark theme, stays readable."""
OUTLIERS = 98
"""The percentile of the magnitudes that has the strongest colour, so that one outlier does not pale the rest."""


ENDS = {"stop": "Ended", "length": "Truncated"}
END_COLOURS: dict[str, Literal["green", "orange"]] = {"stop": "green", "length": "orange"}
"""Why an answer ended, for people."""
SORTS = {
    "step": "Step",
    "reward": "Reward",
    "response_tokens": "Length",
    "kl_sum": "KL",
    "prompt_id": "Prompt",
    "weights_version": "Weights",
}
"""Columns to sort by, besides the rewards' components."""


@dataclass(frozen=True)
class Quantity:
    """One number a token. `signed`: zero is its middle."""

    name: str
    label: str
    signed: bool
    help: str


QUANTITIES = (
    Quantity("logprobs", "Log-prob", False, "The trainer's log-probability of the token: the stronger the colour, the less likely it was."),
    Quantity("rollout_logprobs", "Log-prob", False, "The engine's log-probability of the token: the stronger the colour, the less likely it was."),
    Quantity("entropy", "Entropy", False, "How undecided the policy was here, in nats."),
    Quantity("kl", "KL", True, "Estimate of the KL to the reference policy, in nats."),
    Quantity("advantages", "Advantage", True, "How much better than expected: what the token is pushed by."),
    Quantity("values", "Value", True, "The critic's estimate of what is still to come."),
    Quantity("returns", "Return", True, "What the critic learns to predict."),
    Quantity("shift", "Policy − reference", True, "Log-probability now minus that of the reference policy, in nats."),
    Quantity("mismatch", "Trainer − engine", True, "The trainer's log-probability minus the rollout engine's: far from 0, the two disagree."),
)
_DIFFERENCES = {"shift": "reference_logprobs", "mismatch": "rollout_logprobs"}


def quantities(rollout: Mapping[str, object]) -> dict[Quantity, list[float | None]]:
    """What a rollout has of the quantities, one value a token."""
    result = {}
    for quantity in QUANTITIES:
        values = cast(Values | None, rollout.get(quantity.name))
        if other := _DIFFERENCES.get(quantity.name):
            values = _difference(cast(Values | None, rollout.get("logprobs")), cast(Values | None, rollout.get(other)))
        if quantity.name == "rollout_logprobs" and rollout.get("logprobs") is not None:  # the trainer's stand for both
            continue
        if values is not None and len(values):
            result[quantity] = list(values)
    return result


def coloured(pieces: Sequence[str], values: Values, theme: Theme = LIGHT, signed: bool | None = None) -> str:
    """The pieces as HTML, each on a ground in the colour of its value, its number in the tooltip. Everything in the text is escaped.

    Signed quantities have a colour a sign, and none at zero; others one colour, the stronger the farther from zero. Without `signed` the signs found tell.
    """
    scale = _scale(values, signed)
    return "".join(_span(piece, value, scale, theme) for piece, value in zip(pieces, values, strict=True))


def legend(values: Values, theme: Theme = LIGHT, signed: bool | None = None) -> str:
    """The scale of `coloured` as HTML: a bar from its least to its greatest colour, with the numbers."""
    top, signed = _scale(values, signed)
    negative = not signed and all(value is None or not value > 0 for value in values)
    ends = (f"−{text.number(top, 3)}", text.number(top, 3)) if signed else ("0", f"{'−' if negative else ''}{text.number(top, 3)}")
    start = _colour(-top, (top, signed), theme) if signed else "transparent"
    middle = "transparent," if signed else ""
    bar = f'<span class="wb-scale" style="background: linear-gradient(90deg, {start}, {middle} {_colour(top, (top, signed), theme)})"></span>'
    return f'<div class="wb-scaled">{ends[0]}{bar}{ends[1]}</div>'


def reward(summary: pd.DataFrame, theme: Theme = LIGHT) -> go.Figure:
    """Mean reward of each step, and one standard deviation around it."""
    steps, mean, spread = (summary[name].to_numpy(float) for name in ("step", "reward_mean", "reward_std"))
    figure = go.Figure()
    known = np.isfinite(mean) & np.isfinite(spread)
    x, low, high = steps[known], (mean - spread)[known], (mean + spread)[known]
    figure.add_scatter(
        x=[*x, *x[::-1]],
        y=[*high, *low[::-1]],
        mode="lines",
        fill="toself",
        fillcolor=rgba(theme.palette[0], 0.16),
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )
    _line(figure, steps, mean, spread, theme.palette[0], "%{y:.4g} ± %{customdata:.3g}")
    return _small(figure, "reward", theme, steps)


def lengths(summary: pd.DataFrame, theme: Theme = LIGHT) -> go.Figure:
    """Mean length of each step's answers; the share that was truncated in the tooltip."""
    figure = go.Figure()
    steps, mean, cut = (summary[name].to_numpy(float) for name in ("step", "length_mean", "truncated"))
    _line(figure, steps, mean, cut, theme.palette[2], "%{y:.4g} tokens, %{customdata:.0%} truncated")
    return _small(figure, "tokens", theme, steps)


def followed(rollouts: pd.DataFrame, theme: Theme = LIGHT) -> go.Figure:
    """The rewards of one prompt's answers over the steps: a dot an answer, a line through the means."""
    figure = go.Figure()
    means = rollouts.groupby("step", as_index=False).agg({"reward": "mean"})
    figure.add_scatter(
        x=means["step"], y=means["reward"], mode="lines", line={"width": 2, "color": theme.palette[0]}, hoverinfo="skip", showlegend=False
    )
    figure.add_scatter(
        x=rollouts["step"],
        y=rollouts["reward"],
        mode="markers",
        marker={"size": 7, "color": theme.palette[0], "opacity": 0.55},
        customdata=rollouts["sample"],
        hovertemplate="sample %{customdata}: %{y:.4g}<extra></extra>",
        showlegend=False,
    )
    return _small(figure, "reward", theme, rollouts["step"].to_numpy(float))


def headline(summary: pd.DataFrame) -> list[Figure]:
    """The newest step's numbers."""
    now = summary.iloc[-1]
    figures = [
        Figure("Step", f"{int(now['step']):,}", f"weights {int(now['weights_version']):,}", "The newest step with a rollout file."),
        Figure("Rollouts", f"{int(now['rollouts']):,}", f"to {int(now['prompts']):,} prompts", "Answers sampled in the step."),
        Figure("Length", text.number(now["length_mean"]), "tokens", "Mean length of an answer."),
        Figure("Truncated", f"{now['truncated']:.0%}", "at max_tokens", "Answers that did not end by themselves."),
    ]
    if now["rewarded"]:
        figures.insert(2, Figure("Reward", text.number(now["reward_mean"]), f"± {text.number(now['reward_std'], 3)}", "Mean and deviation."))
    if math.isfinite(now["kl_mean"]):
        figures.append(Figure("KL", text.number(now["kl_mean"]), "nats an answer", "To the reference policy."))
    return figures


def gist(prompt: str) -> str:
    """The last thing the user says in a prompt, on one line: for lists. The whole prompt where its template is not known."""
    turns = _USER_TURN.findall(prompt)
    return " ".join((turns[-1] if turns else prompt).split())


_USER_TURN = re.compile(r"(?:<\|im_start\|>|<\|start_header_id\|>|<\|)user(?:<\|end_header_id\|>|\|>)?\s+(.*?)(?=<\||</s>|\Z)", re.DOTALL)


def components(rollout: Mapping[str, object]) -> dict[str, float]:
    """The parts of a rollout's reward by name."""
    return {
        name.removeprefix(COMPONENT): float(cast(float, value)) for name, value in rollout.items() if name.startswith(COMPONENT) and value is not None
    }


def paired(before: pd.DataFrame, after: pd.DataFrame) -> list[tuple[dict[Hashable, Any], dict[Hashable, Any]]]:
    """A rollout of each prompt that both steps answered: the same sample where both have it. In the order of the second."""
    first = before.drop_duplicates(["prompt_id", "sample"]).set_index(["prompt_id", "sample"])
    pairs = []
    for prompt_id, same in after.groupby("prompt_id", sort=False):
        shared = [row for row in same.to_dict("records") if (prompt_id, row["sample"]) in first.index]
        if shared:
            old = first.loc[(prompt_id, shared[0]["sample"])].to_dict() | {"prompt_id": prompt_id, "sample": shared[0]["sample"]}
            pairs.append((old, shared[0]))
        elif len(others := before[before["prompt_id"] == prompt_id]):
            pairs.append((others.iloc[0].to_dict(), same.iloc[0].to_dict()))
    return pairs


def _difference(left: Values | None, right: Values | None) -> list[float | None] | None:
    if left is None or right is None:
        return None
    return [None if a is None or b is None else a - b for a, b in zip(left, right, strict=True)]


def _scale(values: Values, signed: bool | None) -> tuple[float, bool]:
    """The magnitude with the strongest colour, and whether signs have colours of their own."""
    known = np.array([value for value in values if value is not None and math.isfinite(value)])
    if signed is None:
        signed = bool(len(known) and known.min() < 0 < known.max())
    top = float(np.percentile(np.abs(known), OUTLIERS)) if len(known) else 0.0
    return top or float(np.abs(known).max(initial=0.0)), signed


def _span(piece: str, value: float | None, scale: tuple[float, bool], theme: Theme) -> str:
    shown = "–" if value is None else text.number(value)
    ground = "transparent" if value is None else _colour(value, scale, theme)
    ends = " wb-newline" if piece.lstrip(" ").startswith("\n") else ""
    title = html.escape(f"{piece.strip() or repr(piece)}: {shown}", quote=True)
    return f'<span class="wb-token{ends}" style="background: {ground}" title="{title}">{html.escape(piece)}</span>'


def _colour(value: float, scale: tuple[float, bool], theme: Theme) -> str:
    top, signed = scale
    if not math.isfinite(value) or not top:
        return "transparent"
    return rgba(theme.palette[1 if signed and value < 0 else 0], STRONGEST * min(1.0, abs(value) / top))


def _line(figure: go.Figure, steps: np.ndarray, y: np.ndarray, beside: np.ndarray, colour: str, label: str) -> None:
    """A curve over the steps whose tooltip says `words`, of %{y} and of %{customdata}, what stands beside it."""
    figure.add_scatter(
        x=steps,
        y=y,
        mode="lines+markers" if len(steps) < 40 else "lines",
        customdata=beside,
        line={"width": 2, "color": colour},
        hovertemplate=f"{label}<extra></extra>",
        showlegend=False,
    )


def _small(figure: go.Figure, y_title: str, theme: Theme, steps: np.ndarray) -> go.Figure:
    """A whole number at each tick: plotly would put several between few steps."""
    figure = style(figure, "step", y_title, theme, height=210).update_xaxes(tickformat=",d")
    return figure.update_xaxes(tick0=0, dtick=1) if len(steps) and np.ptp(steps) < FEW_STEPS else figure
