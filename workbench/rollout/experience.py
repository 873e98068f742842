"""One rollout and all that is computed of it, from its sampling to its lesson."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workbench.data.packing import Row
from workbench.rewards.shaping import Answer

LEARNT = {
    "advantages": "advantages",
    "old_logprobs": "logprobs",
    "rollout_logprobs": "rollout_logprobs",
    "reference_logprobs": "reference_logprobs",
    "learn": "learn",
}
"""The arrays that a policy's loss finds in its batch, and which of an experience's they are."""
_NONE = np.zeros(0, np.float32)


@dataclass
class Experience:
    """T tokens of an answer. Arrays are one value a token, filled as they become known; `place` is the prompt's in its step.

    `step` is the number of the step that learns from it, from 1; 0 where none does. `weights_version` counts the updates that the weights
    behind it had seen. A component that is None has been scored, and its score is unknown for good; `reward` is then None too.
    """

    step: int
    place: int
    sample: int
    row: Row
    tokens: list[int]
    rollout_logprobs: np.ndarray
    finish_reason: str
    prompt: str
    response: str
    pieces: list[str]
    weights_version: int = 0
    components: dict[str, float | None] = field(default_factory=dict)
    reward: float | None = None
    shaped: np.ndarray = field(default_factory=lambda: _NONE)
    learn: bool = True
    logprobs: np.ndarray = field(default_factory=lambda: _NONE)
    reference_logprobs: np.ndarray = field(default_factory=lambda: _NONE)
    entropy: np.ndarray = field(default_factory=lambda: _NONE)
    kl: np.ndarray = field(default_factory=lambda: _NONE)
    values: np.ndarray = field(default_factory=lambda: _NONE)
    advantages: np.ndarray = field(default_factory=lambda: _NONE)
    returns: np.ndarray = field(default_factory=lambda: _NONE)

    @property
    def known_reward(self) -> float:
        """The reward of an answer that has one."""
        assert self.reward is not None
        return self.reward

    @property
    def token_rewards(self) -> np.ndarray:
        """Where the reward lies: as shaping spread it, else all of it at the last token."""
        at_last = np.zeros(len(self.tokens))
        at_last[-1] = self.known_reward
        return self.shaped if len(self.shaped) else at_last

    def answer(self) -> Answer:
        """As a shaping function sees it. Its reward is known; a component of weight 0 that is not is left out."""
        rewards = {name: value for name, value in self.components.items() if value is not None}
        return Answer(self.prompt, self.response, self.row.columns, rewards, self.known_reward, self.pieces, self.finish_reason)

    def record(self, number: int) -> dict[str, Any]:
        """As a row of the step's rollout file."""
        arrays = ("logprobs", "rollout_logprobs", "reference_logprobs", "kl", "entropy", "values", "advantages", "returns")
        return {
            "step": self.step,
            "rollout": number,
            "prompt_id": hashlib.sha256(np.asarray(self.row.prefix, np.int64).tobytes()).hexdigest()[:12],
            "sample": self.sample,
            "prompt": self.prompt,
            "response": self.response,
            "prompt_tokens": len(self.row.prefix),
            "response_tokens": len(self.tokens),
            "pieces": self.pieces,
            "tokens": self.tokens,
            "reward": self.reward,
            "finish_reason": self.finish_reason,
            "weights_version": self.weights_version,
            **{f"reward/{name}": value for name, value in self.components.items()},
            **{name: getattr(self, name) if len(getattr(self, name)) else None for name in arrays},
        }


def known(experiences: Sequence[Experience]) -> list[Experience]:
    """Those whose reward is known."""
    return [e for e in experiences if e.reward is not None]


def mean_rewards(experiences: Sequence[Experience]) -> dict[str, float]:
    """The mean of the known rewards, and of each component's known scores; nothing of what no answer has. `rewards_unknown` counts the others."""
    columns = {"rewards": [e.reward for e in experiences]}
    columns |= {f"reward/{name}": [e.components[name] for e in experiences] for name in experiences[0].components}
    there = {name: [value for value in values if value is not None] for name, values in columns.items()}
    means = {name: sum(values) / len(values) for name, values in there.items() if values}
    unknown = len(experiences) - len(there["rewards"])
    return {**means, **({"rewards_unknown": float(unknown)} if unknown else {})}


def trees(experiences: Sequence[Experience], arrays: Mapping[str, str]) -> list[Row]:
    """The experiences as rows to learn from: a prompt with its answers as branches, and of each token the arrays (name in the loss: field).

    The experiences of a prompt lie side by side.
    """
    rows = []
    for _, same in itertools.groupby(experiences, key=lambda e: e.place):
        answers = list(same)
        values = {name: np.concatenate([_array(e, source) for e in answers]) for name, source in arrays.items()}
        rows.append(dataclasses.replace(answers[0].row, branches=tuple(e.tokens for e in answers), arrays=values))
    return rows


def fill(experiences: Sequence[Experience], rows: Sequence[np.ndarray], name: str) -> None:
    """Give each experience its part of what was computed of the rows that `trees` made of them."""
    flat = np.concatenate(rows) if len(rows) else _NONE
    ends = np.cumsum([len(e.tokens) for e in experiences])[:-1]
    for e, part in zip(experiences, np.split(flat, ends), strict=True):
        setattr(e, name, part)


def _array(e: Experience, name: str) -> np.ndarray:
    if name == "learn":
        return np.full(len(e.tokens), float(e.learn), np.float32)
    return getattr(e, name)
