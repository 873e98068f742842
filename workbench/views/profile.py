"""Where the seconds of a step go: by phase over the steps, as means with their shares, and what engine and servers did in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from workbench import metrics as M
from workbench.views import text
from workbench.views.catalogue import PHASE_PARTS as PARTS
from workbench.views.figures import LIGHT, Theme, rgba, style
from workbench.views.history import History

BARS = 60
"""The most bars of the chart; of more steps each bar is the mean of several."""
HEIGHT = 470
FAINT = 0.005
"""The chart leaves out phases with a smaller share; the table has all."""
OTHER, OVERLAP = "other", "overlap"
LABELS = {
    "generate": "Generate",
    "refit": "Refit of the engine's weights",
    "reward": "Reward",
    "logprobs": "Log-probabilities",
    "init_logprobs": "Reference log-probabilities",
    "critic_infer": "Critic: values",
    "critic_train": "Critic: lesson handed over",
    "critic_wait": "Critic: waiting for the lesson",
    "train": "Train",
    "data": "Packing",
    "forward_backward": "Forward and backward",
    "optimizer": "Optimizer",
    "store": "Storing the rollouts",
    OTHER: "Everything else",
    OVERLAP: "Done beside other phases",
}
COLOURS = {
    "generate": (0, 1.0),
    "refit": (4, 1.0),
    "reward": (6, 1.0),
    "logprobs": (5, 1.0),
    "init_logprobs": (5, 0.55),
    "critic_infer": (2, 0.55),
    "critic_train": (2, 0.8),
    "critic_wait": (2, 1.0),
    "train": (1, 1.0),
    "forward_backward": (1, 1.0),
    "optimizer": (1, 0.6),
    "data": (1, 0.35),
    "store": (7, 1.0),
    OTHER: (7, 0.4),
}
"""Place in the palette, and strength, of each phase; one that nobody foresaw takes the fourth colour."""
ENGINE: Mapping[str, str] = {
    **{metric: f"{metric.label.capitalize()}, {metric.unit}" for metric in (M.DECODE_TOKENS_PER_S, M.PREFILL_TOKENS_PER_S)},
    M.BATCH_OCCUPANCY: M.BATCH_OCCUPANCY.heading,
}


@dataclass(frozen=True)
class Phase:
    """Mean seconds of a phase in a step, and their share of it. `within` names the phase that it is a part of."""

    name: str
    label: str
    seconds: float
    share: float
    within: str = ""


@dataclass(frozen=True)
class Server:
    """What a step's requests to one endpoint took, summed over the ranks: in the server, and on the way."""

    endpoint: str
    server_s: float
    wire_s: float


@dataclass(frozen=True)
class Profile:
    """Means over `steps` steps of `step_s` seconds. `engine` holds those of ENGINE that were measured."""

    steps: int
    step_s: float
    phases: Sequence[Phase]
    engine: Mapping[str, float]
    servers: Sequence[Server]

    def phase(self, name: str) -> Phase | None:
        return next((phase for phase in self.phases if phase.name == name), None)


def of(history: History, last: int | None = None) -> Profile | None:
    """The means over the newest `last` steps, or over all; None while no step was timed."""
    columns = {name: np.array(column, float)[-last if last else 0 :] for name, column in history.metrics.items()}
    step_N = columns.get(M.STEP_TIME_S)
    if step_N is None or not np.isfinite(step_N).any():
        return None
    step_s = _mean(step_N)
    seconds = {name: float(np.nan_to_num(columns[M.TIME_OF(name)][np.isfinite(step_N)]).mean()) for name in _phases(history)}
    inside = {part: whole for whole, parts in PARTS.items() if whole in seconds for part in parts}
    tops = {name: value for name, value in seconds.items() if name not in inside}
    rest = step_s - sum(tops.values())
    phases = []
    for name, value in sorted(tops.items(), key=lambda item: -item[1]):
        phases.append(Phase(name, label(name), value, value / step_s))
        phases += [Phase(part, label(part), seconds[part], seconds[part] / step_s, name) for part in PARTS.get(name, ()) if part in seconds]
    name = OTHER if rest >= 0 else OVERLAP
    phases.append(Phase(name, LABELS[name], abs(rest), abs(rest) / step_s))
    engine: dict[str, float] = {name: _mean(columns[name]) for name in ENGINE if name in columns and np.isfinite(columns[name]).any()}
    return Profile(int(np.isfinite(step_N).sum()), step_s, phases, engine, _servers(columns))


def figure(history: History, theme: Theme = LIGHT) -> go.Figure:
    """Seconds by phase over the steps, as stacked bars that are as high as a step is long."""
    steps = np.array(history.steps)
    groups = [group for group in np.array_split(np.arange(len(steps)), min(BARS, len(steps)) or 1) if len(group)]
    seconds_PG = {name: np.array([_mean(column[group]) for group in groups]) for name, column in _disjoint(history).items()}
    total = sum(float(values.sum()) for values in seconds_PG.values()) or 1.0
    spans = [f"step {steps[g[0]]:,}" if len(g) == 1 else f"steps {steps[g[0]]:,}–{steps[g[-1]]:,}, mean" for g in groups]
    drawn = go.Figure()
    for name, values_G in seconds_PG.items():
        if values_G.sum() / total < FAINT:
            continue
        colour, strength = COLOURS.get(name, (3, 1.0))
        drawn.add_bar(
            x=[float(steps[group].mean()) for group in groups],
            y=values_G,
            width=[len(group) * 0.9 for group in groups],
            name=label(name),
            marker={"color": rgba(theme.palette[colour], strength), "line": {"width": 0}},
            customdata=spans,
            hovertemplate="%{y:.3~g} s",
        )
    drawn = style(drawn, "step", "seconds", theme, HEIGHT)
    drawn.update_layout(barmode="stack", bargap=0.1, margin={"t": 70}, legend={"traceorder": "normal", "font": {"size": 11}})
    if len(groups) == len(steps) < 13:
        drawn.update_xaxes(tickmode="array", tickvals=steps.tolist())
    return drawn.update_xaxes(tickformat=",d")


def label(name: str) -> str:
    return LABELS.get(name) or text.title(name)


def measure(name: str, value: float) -> str:
    """One of ENGINE's numbers for people."""
    return f"{value:.0%}" if name == M.BATCH_OCCUPANCY else text.number(value)


def _phases(history: History) -> list[str]:
    return [part for name in history.metrics if (part := M.TIME_OF.part(name))]


def _disjoint(history: History) -> dict[str, np.ndarray]:
    """Each phase's seconds by step without those of its parts, in the order in which a step goes through them, and what is left."""
    seconds = {name: np.nan_to_num(np.array(history.metrics[M.TIME_OF(name)], float)) for name in _phases(history)}
    for whole, parts in PARTS.items():
        if whole in seconds:
            seconds[whole] = np.maximum(0, seconds[whole] - sum((seconds[part] for part in parts if part in seconds), np.zeros_like(seconds[whole])))
    step_N = np.nan_to_num(np.array(history.metrics.get(M.STEP_TIME_S, []), float))
    seconds[OTHER] = np.maximum(0, step_N - sum(seconds.values(), np.zeros_like(step_N)))
    order = [*LABELS, *(name for name in seconds if name not in LABELS)]
    return {name: seconds[name] for name in order if name in seconds}


def _servers(columns: Mapping[str, np.ndarray]) -> list[Server]:
    names = [part for name in columns if (part := M.SERVER_OF.part(name))]
    servers = [Server(name, _mean(columns[M.SERVER_OF(name)]), _mean(columns.get(M.WIRE_OF(name), np.zeros(1)))) for name in names]
    return sorted((s for s in servers if s.server_s + s.wire_s > 0), key=lambda s: -s.server_s - s.wire_s)


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan
