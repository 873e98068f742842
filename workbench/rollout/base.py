"""What a rollout engine is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn. `temperature` 0 takes the likeliest token each time."""

    max_tokens: int
    temperature: float = 1.0
    stop_tokens: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Rollout:
    """One answer: its tokens (the stop token included), the log-probability of each at temperature 1, and why it ended."""

    tokens: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length"]


class RolloutEngine(Protocol):
    """One way to generate."""

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, seed: int) -> list[Rollout]:
        """One answer a prompt, in order. The same seed gives the same answers."""
        ...
