"""What the algorithms that learn from pairs share: an answer's log-probability, and the metrics of a pair. Answers lie chosen, rejected, chosen, …"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from workbench import functional as F
from workbench import metrics as M

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.algorithms import Batch, Metrics, Runtime

Level = Literal["answer", "token"]


def logprobs_of_answers(batch: Batch, per_token: bool = False) -> Tensor:
    """Each answer's log-probability under the policy [S], in nats; with `per_token` the mean over its tokens."""
    return _of_answers(batch, batch.logprobs_N, per_token)


def reference_of_answers(batch: Batch, per_token: bool = False) -> Tensor:
    """The same under the reference [S]. Raises ValueError where the rows have no reference log-probabilities."""
    return _of_answers(batch, batch.reference_logprobs_N, per_token)


def _of_answers(batch: Batch, logprobs_N: Tensor, per_token: bool) -> Tensor:
    sums_S = F.sequences.sum_by_sequence(logprobs_N, batch.sequence_N, batch.num_sequences)
    return sums_S / F.sequences.count_by_sequence(batch.sequence_N, batch.num_sequences) if per_token else sums_S


def sft_loss(batch: Batch, level: Level, chosen_tokens: float | None = None) -> Tensor:
    """The chosen answers' negative log-likelihood a token, one value a pair [B].

    Args:
        level: whether every answer weighs the same (its tokens' mean), or every token of them, as in TRL.
        chosen_tokens: for the level token the mean tokens of the global batch's chosen answers; without it (held-out rows) the microbatch's.
    """
    sums_S = logprobs_of_answers(batch)
    tokens_S = F.sequences.count_by_sequence(batch.sequence_N, batch.num_sequences)
    if level == "answer":
        return -sums_S[0::2] / tokens_S[0::2]
    return -sums_S[0::2] / (chosen_tokens or tokens_S[0::2].double().mean().item())


def train(rt: Runtime, loss: Callable[..., tuple[Tensor, Metrics]]) -> Iterator[Metrics]:
    """Of losses that weigh every token of the chosen answers the same: they are given the global batch's `chosen_tokens`."""
    for rows in rt.batches():
        mean = sum(len(row.learnt(0)) for row in rows) / len(rows)
        yield rt.update(rows, functools.partial(loss, chosen_tokens=mean))


def metrics(loss_B: Tensor, rewards_S: Tensor, policy_S: Tensor) -> Metrics:
    """Of each pair: loss, rewards, their margin, whether the chosen answer is ahead, and the answers' log-probabilities."""
    chosen_B, rejected_B = rewards_S.view(-1, 2).unbind(1)
    margin_B = chosen_B - rejected_B
    return {
        M.LOSS: loss_B,
        M.ACCURACY: (margin_B > 0).float() + 0.5 * (margin_B == 0),  # a tie is a coin toss, as at the first step
        M.REWARDS_CHOSEN_MEAN: chosen_B,
        M.REWARDS_REJECTED_MEAN: rejected_B,
        M.REWARDS_MARGIN: margin_B,
        M.LOGPROBS_CHOSEN: policy_S[0::2],
        M.LOGPROBS_REJECTED: policy_S[1::2],
    }
