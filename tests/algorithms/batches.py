"""Batches and rollouts written out by hand: what a loss is given without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from workbench.algorithms import grpo, online_dpo, ppo, rejection_sampling, reward_model
from workbench.data.packing import Row, pack
from workbench.engine.batch import Batch, Given, TopK
from workbench.rollout.experience import LEARNT, Experience, group_into_rows

KTO_ROWS = [
    Row([1, 2], ((3, 4), (5,)), values={"desirable": 1.0}, reference_logprobs_N=np.array([-1.5, -2.5, -2.0], np.float32)),
    Row([6], ((5,), (3, 4)), values={"desirable": 0.0}, reference_logprobs_N=np.array([-2.0, -1.0, -1.0], np.float32)),
]
REGRESSION = reward_model.Config(objective="regression", attributes=("helpfulness", "humor"))
REWARDS = {"short": {"program": "brevity"}}


def taught_batch() -> Batch:
    """One token of two that are learnt: P = (1/2, 1/4, rest 1/4), Q = (1/4, 1/4, rest 1/2), and the data's token has probability 1/8; at the other P = Q."""
    student = torch.tensor([[0.25, 0.25], [0.5, 0.25]]).log(), torch.tensor([0.5, 0.25]).log()
    given = Given(torch.tensor([1 / 8, 1 / 4]).log(), at=TopK(torch.tensor([[3, 4], [5, 6]]), *student))
    arrays = {"teacher_top_logprobs": torch.tensor([[0.5, 0.25], [0.5, 0.25]]).log(), "teacher_rest": torch.tensor([0.25, 0.25]).log()}
    return Batch(given, None, torch.tensor([0, 0]), 1, [Row([1, 2, 3], learn=[False, True, True])], arrays)


def group_batch() -> Batch:
    """A prompt with two answers of one token, each with its log-probabilities."""
    scores = {"attribute_logprobs": (-1.0, -2.0), "base_logprobs": (-2.0, -3.0)}
    row = Row([1, 2], ((3,), (4,)), branch_values=scores, reference_logprobs_N=np.array([-1.0, -3.0], np.float32))
    return Batch(Given(torch.tensor([-1.0, -2.0])), torch.tensor([-1.0, -3.0]), torch.tensor([0, 1]), 2, [row])


def kto_batch(rows: Sequence[Row], logprobs: Sequence[float]) -> Batch:
    """With the policy's log-probabilities as given."""
    packed = pack(rows)
    reference = np.concatenate([row.reference_logprobs_N for row in rows if row.reference_logprobs_N is not None])
    return Batch(Given(torch.tensor(logprobs)), torch.from_numpy(reference), torch.from_numpy(packed.sequence_N), packed.num_sequences, rows)


def score_batch(scores: list[list[float]], *values: Mapping[str, float]) -> Batch:
    """With the model's scores as given, as many branches a row as there are scores."""
    branches = len(scores) // len(values)
    rows = [Row([1], tuple((n,) for n in range(branches)), values=each) for each in values]
    return Batch(Given(scores_SK=torch.tensor(scores)), None, torch.zeros(0), len(scores), rows)


def answer(tokens: int, reward: float | None, place: int = 0, sample: int = 0, finish_reason: str = "stop", **values: Any) -> Experience:
    """One whose log-probabilities, values and KL are 0 unless they are given."""
    zeros = {name: np.zeros(tokens, np.float32) for name in ("logprobs", "reference_logprobs", "kl", "values", "entropy")}
    row = Row((1, 2), ())
    made = Experience(
        1, place, sample, row, [7] * tokens, np.zeros(tokens, np.float32), finish_reason, "?", "!", ["a"] * tokens, reward=reward, learn=True
    )
    for name, value in {**zeros, **values}.items():
        setattr(made, name, np.asarray(value, np.float32) if name in zeros else value)
    return made


def ppo_config(**values: Any) -> ppo.Config:
    return ppo.Config.model_validate({"rewards": REWARDS, "gae_lambda": 1.0, "kl_coefficient": 0.0, **values})


def grpo_config(**values: Any) -> grpo.Config:
    return grpo.Config.model_validate(
        {"rewards": REWARDS, "samples_per_prompt": 2, "rollout_batch_size": 4, "global_batch_size": 4, "kl_coefficient": 0.0, **values}
    )


def online_dpo_config(**values: Any) -> online_dpo.Config:
    return online_dpo.Config.model_validate({"rewards": REWARDS, **values})


def rejection_config(**values: Any) -> rejection_sampling.Config:
    return rejection_sampling.Config.model_validate({"rewards": REWARDS, **values})


def online_batch(experiences: Sequence[Experience], logprobs: Sequence[float]) -> Batch:
    """As a loss gets it, with the policy's log-probabilities as given."""
    rows = group_into_rows(experiences, LEARNT)
    return Batch(
        Given(torch.tensor(logprobs, dtype=torch.float64, requires_grad=True)),
        reference_N=None,
        sequence_N=torch.tensor([i for i, e in enumerate(experiences) for _ in e.tokens]),
        num_sequences=len(experiences),
        rows=rows,
        arrays={name: torch.from_numpy(np.concatenate([row.arrays[name] for row in rows])).double() for name in LEARNT},
    )
