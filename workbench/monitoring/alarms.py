"""What in a run's numbers should worry its owner: pure functions of the metrics of its steps so far.

An alarm names its cause and the rollouts behind it. It sounds once when it begins, not at every step that it lasts. (A hang is the driver's to tell:
`workbench.monitoring.hang`.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from workbench import metrics as M
from workbench.metrics import Metric

Steps = Sequence[Mapping[str, float]]

WINDOW = 5
"""Steps whose mean is compared with that of the run's first ones."""


@dataclass(frozen=True)
class Alarm:
    """`rank_by` is the quantity of a rollout whose largest values point at the cause; empty where all are concerned."""

    name: str
    message: str
    rank_by: str = ""


@dataclass(frozen=True)
class Limit:
    """An alarm while one metric is at its limit or above. `message` is filled with `now` and `limit`."""

    name: str
    metric: Metric
    limit: float
    message: str
    rank_by: str


LIMITS = (
    Limit(
        "KL blow-up",
        M.KL_PER_ANSWER,
        50.0,
        "the policy is {now:.1f} nats an answer from its reference (limit {limit:g}); raise kl_coefficient (online_dpo: beta) or lower lr",
        "kl",
    ),
    Limit(
        "mismatch",
        M.LOGPROB_MISMATCH_MEAN,
        0.05,
        "sampler and trainer differ by {now:.3f} nats a token (limit {limit:g}); a smaller rollout.max_staleness or lr keeps them "
        "closer, and algorithm.importance_cap, where the algorithm has it, corrects for it",
        "mismatch",
    ),
)


def raised(steps: Steps) -> list[Alarm]:
    """The alarms of the newest step, given the metrics of all steps so far."""
    if not steps:
        return []
    alarms = [_not_a_number(steps[-1]), *(_at_limit(steps[-1], limit) for limit in LIMITS), _length_explosion(steps), _entropy_collapse(steps)]
    return [alarm for alarm in alarms if alarm]


def _not_a_number(step: Mapping[str, float]) -> Alarm | None:
    bad = [name for name, value in step.items() if isinstance(value, float) and not math.isfinite(value)]
    return Alarm("not a number", f"{', '.join(bad)} {'is' if len(bad) == 1 else 'are'} NaN or infinite") if bad else None


def _at_limit(step: Mapping[str, float], limit: Limit) -> Alarm | None:
    now = step.get(limit.metric, -math.inf)
    return Alarm(limit.name, limit.message.format(now=now, limit=limit.limit), limit.rank_by) if now >= limit.limit else None


def _length_explosion(steps: Steps) -> Alarm | None:
    lengths, rewards = _change(steps, M.GENERATION_LENGTH), _change(steps, M.REWARDS)
    if lengths is None or rewards is None or not (lengths[1] >= 1.5 * lengths[0] and rewards[1] > rewards[0]):
        return None
    before, now = lengths
    return Alarm("length", f"the reward rises while answers grow from {before:.0f} to {now:.0f} tokens: is length what it pays for?", "length")


def _entropy_collapse(steps: Steps) -> Alarm | None:
    entropies = _change(steps, M.ENTROPY)
    if entropies is None or not 0.2 * entropies[0] >= entropies[1] < entropies[0]:
        return None
    before, now = entropies
    return Alarm("entropy collapse", f"the entropy of a token fell from {before:.2f} to {now:.2f} nats: answers are becoming the same", "entropy")


def _change(steps: Steps, name: str) -> tuple[float, float] | None:
    """The mean of a metric over the first and over the newest steps that have it; None while there are too few to compare."""
    first = _some(steps, name, range(len(steps)))
    newest = _some(steps, name, reversed(range(len(steps))))
    if len(first) < WINDOW or first[-1] >= newest[-1]:
        return None
    before, now = (sum(steps[i][name] for i in places) / WINDOW for places in (first, newest))
    return before, now


def _some(steps: Steps, name: str, order: Iterable[int]) -> list[int]:
    """The places of the first few steps, in this order, that have the metric."""
    return list(itertools.islice((i for i in order if isinstance(steps[i].get(name), int | float)), WINDOW))
