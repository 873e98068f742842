"""What the algorithms that learn from the best of a prompt's answers share: their settings, the choice, and its metrics."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from workbench import metrics as M
from workbench.algorithms import _online as online
from workbench.rollout.experience import rewarded
from workbench.settings.online import SamplingConfig

if TYPE_CHECKING:
    from workbench.algorithms import Metrics
    from workbench.rollout.experience import Experience


class BestConfig(SamplingConfig):
    """Settings of an algorithm that makes at most one thing to learn of each prompt's answers."""

    samples_per_prompt: int = Field(default=4, ge=2, le=256, description="Answers to each prompt, among which the best is chosen.")
    global_batch_size: int = Field(
        default=16,
        ge=1,
        le=65536,
        description="Prompts learnt from in one optimizer step: a step's are divided into updates of nearly equal sizes.",
    )

    @property
    def learnt_per_step(self) -> int:
        return self.rows_per_step

    def _no_multiple(self) -> str:
        return (
            f"a step has {self.rows_per_step} prompts (rollout_batch_size={self.rollout_batch_size} / samples_per_prompt={self.samples_per_prompt}),"
            f" no multiple of global_batch_size={self.global_batch_size}, which counts prompts: set global_batch_size={self.rows_per_step} for one update a step"
        )


@dataclass(frozen=True)
class Choice:
    """The best and the worst answer of each prompt that is learnt from, in the prompts' order, and the choice's metrics."""

    pairs: Sequence[tuple[Experience, Experience]]
    metrics: Metrics


def choose(experiences: Sequence[Experience], keep_ties: bool = False, distinct: bool = False) -> Choice:
    """Choose by reward among each prompt's answers that are learnt from, which lie side by side; of equal rewards the first answer's.

    Left out, and counted as shares of all prompts: a prompt with fewer than two such answers; one whose rewards are all equal, unless `keep_ties`;
    with `distinct` one whose best and worst answer have the same text.

    Raises:
        ValueError: a reward is NaN or infinite.
    """
    prompts = [list(same) for _, same in itertools.groupby(experiences, key=lambda e: e.prompt_index)]
    pairs: list[tuple[Experience, Experience]] = []
    few = tied = alike = 0
    for answers in prompts:
        choosable = [e for e in rewarded(answers) if e.known("learn")]
        if bad := next((e for e in choosable if not math.isfinite(e.known("reward"))), None):
            raise ValueError(f"the reward of an answer is {bad.reward}, and the best is chosen by it; its components: {bad.components}")
        if len(choosable) < 2:
            few += 1
            continue
        best, worst = max(choosable, key=_reward), min(choosable, key=_reward)
        tied += (equal := best.reward == worst.reward)
        if equal and not keep_ties:
            continue
        if distinct and best.response == worst.response:
            alike += 1
        else:
            pairs.append((best, worst))
    shares = {M.PROMPTS_UNRATED: few, M.PROMPTS_TIED: tied, **({M.PROMPTS_ALIKE: alike} if distinct else {})}
    return Choice(pairs, {**{name: count / len(prompts) for name, count in shares.items()}, **_mean_rewards(pairs)})


def _reward(e: Experience) -> float:
    return e.known("reward")


def _mean_rewards(pairs: Sequence[tuple[Experience, Experience]]) -> Metrics:
    if not pairs:
        return {}
    best, worst = (sum(map(_reward, each)) / len(pairs) for each in zip(*pairs, strict=True))
    return {M.REWARDS_BEST: best, M.REWARDS_WORST: worst}


def mark(experiences: Sequence[Experience], raised: Sequence[Experience], lowered: Sequence[Experience] = ()) -> None:
    """Advantages of 1 for answers whose likelihood is raised, -1 where it is lowered, 0 for the others: the rollout files tell by them what was learnt."""
    online.spread(experiences, [0.0] * len(experiences))
    online.spread(raised, [1.0] * len(raised))
    online.spread(lowered, [-1.0] * len(lowered))
