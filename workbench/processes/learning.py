"""Learning from rollouts: the policy's updates on a step's experiences, and what of them stands out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from workbench.engine.batch import Loss, Metrics
from workbench.engine.step import Policy
from workbench.metrics import combined
from workbench.rollout.experience import LEARNT, Experience, group_into_rows
from workbench.settings.online import SamplingConfig, require


def learn(policy: Policy, experiences: Sequence[Experience], loss: Loss, epochs: int, step: int, seed: int) -> Metrics:
    """`epochs` passes in minibatches of `global_batch_size`; a prompt's answers lie side by side. Returns the metrics of all updates as one.

    Raises TypeError for an algorithm that samples nothing.
    """
    known = {name: source for name, source in LEARNT.items() if getattr(experiences[0], source) is not None}
    known |= {name: name for name in experiences[0].arrays}
    parts = minibatches(experiences, require(policy.algorithm, SamplingConfig), epochs, seed, step)
    return combined([policy.update(group_into_rows(minibatch, known), loss, step, seed, part) for part, minibatch in enumerate(parts)])


def minibatches(experiences: Sequence[Experience], cfg: SamplingConfig, epochs: int, seed: int, step: int) -> Iterator[list[Experience]]:
    """Each pass a fresh order of the prompts, cut into as few minibatches as `global_batch_size` allows, as equal as whole units of
    `answers_in_unit` can be. A function of its arguments alone.
    """
    prompts = [list(same) for _, same in itertools.groupby(experiences, key=lambda e: e.prompt_index)]
    units = len(experiences) // cfg.answers_in_unit
    parts = -(-units // cfg.global_batch_size)
    ends = [cfg.answers_in_unit * (units * part // parts) for part in range(parts + 1)]
    for epoch in range(epochs):
        order = np.random.default_rng((seed, step, epoch)).permutation(len(prompts))
        flat = [e for i in order for e in prompts[i]]
        for start, end in itertools.pairwise(ends):
            yield flat[start:end]


QUANTITIES: dict[str, Callable[[Experience], float]] = {
    "length": lambda e: float(len(e.tokens)),
    "entropy": lambda e: -float(e.known("entropy").mean()),
    "kl": lambda e: float(e.known("kl").sum()),
    "mismatch": lambda e: float(np.abs(e.known("logprobs") - e.rollout_logprobs).mean()),
}
"""By what answers are ranked behind an alarm; the entropy's smallest are its worst."""


def worst(experiences: Sequence[Experience], quantity: str, count: int = 3) -> list[int]:
    """The numbers of the experiences in which a quantity is largest (for the entropy: smallest)."""
    amounts = [QUANTITIES[quantity](e) for e in experiences]
    return sorted(range(len(amounts)), key=lambda i: -amounts[i])[:count]
