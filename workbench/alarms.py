"""What in a run's numbers should worry its owner: pure functions of the metrics of its steps so far.

An alarm names its cause and the rollouts behind it. It sounds once when it begins, not at every step that it lasts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Steps = Sequence[Mapping[str, Any]]

KL_LIMIT = 50.0
MISMATCH_LIMIT = 0.05
WINDOW = 5
"""Steps whose mean is compared with that of the run's first ones."""


@dataclass(frozen=True)
class Alarm:
    """`rank_by` is the quantity of a rollout whose largest values point at the cause; empty where all are concerned."""

    name: str
    message: str
    rank_by: str = ""


def found(steps: Steps) -> list[Alarm]:
    """The alarms of the newest step, given the metrics of all steps so far."""
    return [alarm for rule in RULES if steps and (alarm := rule(steps))]


def _not_a_number(steps: Steps) -> Alarm | None:
    bad = [name for name, value in steps[-1].items() if isinstance(value, float) and not math.isfinite(value)]
    return Alarm("not a number", f"{', '.join(bad)} {'is' if len(bad) == 1 else 'are'} no finite number") if bad else None


def _kl_blow_up(steps: Steps) -> Alarm | None:
    now = steps[-1].get("init_policy_kl")
    if now is None or now < KL_LIMIT:
        return None
    return Alarm(
        "KL blow-up", f"the policy is {now:.1f} nats an answer from its reference (limit {KL_LIMIT:g}); raise kl_coefficient or lower lr", "kl"
    )


def _length_explosion(steps: Steps) -> Alarm | None:
    (length, longer), (reward, higher) = _change(steps, "response_lengths"), _change(steps, "rewards")
    if longer is None or higher is None or longer < 1.5 * length or higher <= reward:
        return None
    return Alarm("length", f"the reward rises while answers grow from {length:.0f} to {longer:.0f} tokens: is length what it pays for?", "length")


def _entropy_collapse(steps: Steps) -> Alarm | None:
    before, now = _change(steps, "entropy")
    if now is None or now > 0.2 * before:
        return None
    return Alarm("entropy collapse", f"the entropy of a token fell from {before:.2f} to {now:.2f} nats: answers are becoming the same", "entropy")


def _mismatch(steps: Steps) -> Alarm | None:
    now = steps[-1].get("logprob_mismatch_mean")
    if now is None or now < MISMATCH_LIMIT:
        return None
    return Alarm(
        "mismatch", f"rollout engine and trainer differ by {now:.3f} nats a token (limit {MISMATCH_LIMIT:g}); set importance_cap", "mismatch"
    )


RULES: Sequence[Callable[[Steps], Alarm | None]] = (_not_a_number, _kl_blow_up, _length_explosion, _entropy_collapse, _mismatch)


def _change(steps: Steps, name: str) -> tuple[float, float | None]:
    """The mean of a metric over the first and over the newest steps; None for the newest while there are too few to compare."""
    values = [step[name] for step in steps if isinstance(step.get(name), int | float)]
    if len(values) < 2 * WINDOW:
        return 0.0, None
    return sum(values[:WINDOW]) / WINDOW, sum(values[-WINDOW:]) / WINDOW
