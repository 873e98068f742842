"""One answer and all that becomes known of it, in stages: sampled, scored, measured, learnable.

What is not known yet is None, so that nothing is averaged, stored or learnt from before it is there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from workbench import metrics as M
from workbench.data.packing import Kept, Row
from workbench.rewards.shaping import Answer

Stage = Literal["sampled", "scored", "measured", "learnable"]
LEARNT = {
    "advantages": "advantages",
    "old_logprobs": "logprobs",
    "rollout_logprobs": "rollout_logprobs",
    "reference_logprobs": "reference_logprobs",
    "learn": "learn",
}
"""The arrays that a policy's loss finds in its batch, and which of an experience's they are."""
FILLED_BY = {
    "reward": "the reward role",
    "logprobs": "the trainer (`measure`)",
    "entropy": "the trainer (`measure`)",
    "reference_logprobs": "the reference role",
    "kl": "the algorithm, from the log-probabilities of policy and reference",
    "values": "the critic role",
    "advantages": "the algorithm",
    "returns": "the algorithm",
    "learn": "the algorithm",
}


@dataclass
class Experience:
    """T tokens of an answer. Arrays have one value a token; `prompt_index` is the prompt's number in its step.

    `step` is the number of the step that learns from it, from 1; 0 where none does. `weights_version` counts the updates that the weights
    behind it had seen. What fills the fields that begin as None: FILLED_BY.

    Attributes:
        components: the reward's parts that were scored, by name; None where a score is unknown for good.
        reward: their weighted sum, in which every part is decided; None where one is not.
        shaped: where the reward lies, if shaping spread it over the tokens.
        learn: whether the policy learns from it.
        arrays: what other roles know of each token, by name; a loss finds them in its batch under these names.
        temperature: at which it was sampled; its log-probabilities, by whomever, are those at this temperature.
        scored_tokens: those that are scored, where a stop string and what follows it are not.
        kept: the tokens that each of its tokens was drawn among, where log-probabilities are those among them.
    """

    step: int
    prompt_index: int
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
    shaped: np.ndarray | None = None
    logprobs: np.ndarray | None = None
    entropy: np.ndarray | None = None
    reference_logprobs: np.ndarray | None = None
    kl: np.ndarray | None = None
    values: np.ndarray | None = None
    advantages: np.ndarray | None = None
    returns: np.ndarray | None = None
    learn: bool | None = None
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    temperature: float = 1.0
    kept: Kept | None = None
    scored_tokens: list[int] | None = None

    @property
    def stage(self) -> Stage:
        """How far it has come."""
        if self.advantages is not None:
            return "learnable"
        if self.logprobs is not None:
            return "measured"
        return "scored" if self.components else "sampled"

    def known(self, name: str) -> Any:
        """The field, which must be known by now.

        Raises:
            ValueError: it is not; the message names the stage and what fills the field.
        """
        value = self.arrays[name] if name in self.arrays else getattr(self, name, None)
        if value is None:
            raise ValueError(f"{name} of an answer is not known at the stage {self.stage!r}: {FILLED_BY.get(name, 'nothing')} fills it")
        return value

    def put(self, name: str, values: np.ndarray) -> None:
        """Values of the tokens that became known: into the field of this name, else among the `arrays`."""
        if name in _FIELDS:
            setattr(self, name, values)
        else:
            self.arrays[name] = values

    @property
    def token_rewards(self) -> np.ndarray:
        """Where the reward lies [T]: as shaping spread it, else all of it at the last token. Raises ValueError where it is not known."""
        if self.shaped is not None:
            return self.shaped
        at_last = np.zeros(len(self.tokens))
        at_last[-1] = self.known("reward")
        return at_last

    def answer(self) -> Answer:
        """As a shaping function sees it. Its reward is known; a component of weight 0 that is not is left out."""
        rewards = {name: value for name, value in self.components.items() if value is not None}
        return Answer(self.prompt, self.response, self.row.columns, rewards, self.known("reward"), self.pieces, self.finish_reason)

    def record(self, number: int) -> dict[str, object]:
        """As a row of the step's rollout file."""
        arrays = ("logprobs", "rollout_logprobs", "reference_logprobs", "kl", "entropy", "values", "advantages", "returns")
        return {
            "step": self.step,
            "rollout": number,
            "prompt_id": prompt_id(self.row.prefix),
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
            **{name: getattr(self, name) for name in arrays},
        }


_FIELDS = frozenset(each.name for each in dataclasses.fields(Experience))


def prompt_id(prefix: Sequence[int]) -> str:
    """Names a prompt by its tokens."""
    return hashlib.sha256(np.asarray(prefix, np.int64).tobytes()).hexdigest()[:12]


def rewarded(experiences: Sequence[Experience]) -> list[Experience]:
    """Those whose reward is known."""
    return [e for e in experiences if e.reward is not None]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def mean_rewards(experiences: Sequence[Experience], mean: Callable[[list[float]], float] = _mean) -> dict[str, float]:
    """The mean of the known rewards and of each component's known scores, as metrics; nothing of what no answer has. And the share of the others."""
    columns: dict[str, list[float | None]] = {M.REWARDS: [e.reward for e in experiences]}
    columns |= {M.REWARD_OF(name): [e.components[name] for e in experiences] for name in experiences[0].components}
    there = {name: [value for value in values if value is not None] for name, values in columns.items()}
    unknown = len(experiences) - len(there[M.REWARDS])
    means = {name: float(mean(values)) for name, values in there.items() if values}
    return {**means, **({M.REWARDS_UNKNOWN: unknown / len(experiences)} if unknown else {})}


def lengths(experiences: Sequence[Experience]) -> dict[str, float]:
    """Mean tokens of answers, of prompts, and of both together, as metrics."""
    answers, prompts = (
        _mean([float(len(tokens)) for tokens in each]) for each in ([e.tokens for e in experiences], [e.row.prefix for e in experiences])
    )
    return {M.GENERATION_LENGTH: answers, M.PROMPT_LENGTHS: prompts, M.RESPONSE_LENGTHS: prompts + answers}


def group_into_rows(experiences: Sequence[Experience], arrays: Mapping[str, str]) -> list[Row]:
    """The experiences as rows to learn from: a prompt with its answers as branches, and of each token the arrays (name in the loss: field).

    The experiences of a prompt lie side by side, and were sampled in one step, so at one temperature.
    """
    rows = []
    for _, same in itertools.groupby(experiences, key=lambda e: e.prompt_index):
        answers = list(same)
        values = {name: np.concatenate([_array(e, source) for e in answers]) for name, source in arrays.items()}
        temperature = answers[0].temperature
        assert all(e.temperature == temperature for e in answers), "a step's answers are sampled at one temperature"
        kept = [e.kept for e in answers if e.kept is not None]
        branches, among = tuple(e.tokens for e in answers), Kept.joined(kept) if kept else None
        rows.append(dataclasses.replace(answers[0].row, branches=branches, arrays=values, temperature=temperature, kept=among))
    return rows


def fill(experiences: Sequence[Experience], rows: Sequence[np.ndarray], name: str) -> None:
    """Give each experience its part of what was computed of the rows that `group_into_rows` made of them."""
    flat = np.concatenate(rows) if len(rows) else np.zeros(0, np.float32)
    ends = np.cumsum([len(e.tokens) for e in experiences])[:-1]
    for e, part in zip(experiences, np.split(flat, ends), strict=True):
        e.put(name, part)


def _array(e: Experience, name: str) -> np.ndarray:
    if name == "learn":
        return np.full(len(e.tokens), float(e.known("learn")), np.float32)
    return e.known(name)
