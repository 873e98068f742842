"""Kahneman-Tversky Optimization (Ethayarajh et al., arXiv 2402.01306): learn from answers that are wanted or not, without pairs.

A row's first branch is its own answer, its second an answer to another prompt (`workbench.data.dataset.with_mismatched`): the mean log-ratio of
those estimates KL(policy || reference), the point z0 from which gains and losses are felt.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from workbench import functional as F
from workbench import metrics as M
from workbench.settings import AlgorithmConfig, Roles
from workbench.settings.outputs import Outputs

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.algorithms import Batch, Metrics, Runtime
    from workbench.data.packing import Row

ROWS = "unpaired"
ROLES: Roles = {"reference": "frozen"}
OUTPUTS = Outputs(logprobs=True)


class Config(AlgorithmConfig):
    name: Literal["kto"] = "kto"
    lr: float = Field(default=5e-5, gt=0, le=1, description="Peak learning rate, reached after the warm-up.")
    beta: float = Field(default=0.1, gt=0, le=100, description="How strongly the policy is held to the reference.")
    desirable_weight: float = Field(default=1.0, ge=0, description="lambda_D: weight of the desirable answers.")
    undesirable_weight: float = Field(
        default=1.0,
        ge=0,
        description="lambda_U: weight of the undesirable ones; the authors keep (lambda_D x desirable rows) / (lambda_U x undesirable rows) within 1 to 1.5.",
    )


def loss(batch: Batch, cfg: Config, kl: float | None = None) -> tuple[Tensor, Metrics]:
    """One value a row. Rewards are beta times the log-ratio policy / reference.

    Args:
        kl: z0; the rows then have their own answer alone. Without it (held-out rows) they have both answers, and z0 is that of the microbatch, as
            in the authors' code: the loss is then noisier than in training, while rewards, margin and the order of the answers do not depend on it.
    """
    ratio_S = _log_ratio(batch)
    z0 = kl
    if z0 is None:
        ratio_S, mismatched_S = ratio_S[0::2], ratio_S[1::2]
        z0 = F.preference.kto_reference_point(mismatched_S)
    desirable_B = batch.value("desirable").bool()
    loss_B = F.preference.kto(ratio_S, desirable_B, z0, cfg.beta, cfg.desirable_weight, cfg.undesirable_weight)
    reward_B, gain_B = cfg.beta * ratio_S, (ratio_S - z0) * (2 * desirable_B.float() - 1)
    return loss_B, {
        M.LOSS: loss_B,
        M.ACCURACY: (gain_B > 0).float() + 0.5 * (gain_B == 0),  # on its side of z0; at it, a coin toss
        M.REWARDS_CHOSEN_MEAN: reward_B[desirable_B],
        M.REWARDS_REJECTED_MEAN: reward_B[~desirable_B],
        M.KL: reward_B.new_zeros(len(reward_B)) + z0,
    }


def mismatch(batch: Batch, cfg: Config) -> tuple[Tensor, Metrics]:
    """The log-ratio of each answer, to be averaged over a global batch of mismatched rows."""
    ratio_S = _log_ratio(batch)
    return ratio_S, {M.KL: ratio_S}


def _log_ratio(batch: Batch) -> Tensor:
    return F.sequences.sum_by_sequence(batch.logprobs_N - batch.reference_logprobs_N, batch.sequence_N, batch.num_sequences)


def split(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows with their own answers alone, and with the other prompts' alone; each with its part of the reference's log-probabilities."""
    own, other = [], []
    for row in rows:
        assert row.reference_logprobs_N is not None
        end = len(row.branches[0])
        own.append(dataclasses.replace(row, branches=row.branches[:1], reference_logprobs_N=row.reference_logprobs_N[:end]))
        other.append(dataclasses.replace(row, branches=row.branches[1:], reference_logprobs_N=row.reference_logprobs_N[end:]))
    return own, other


def train(cfg: Config, rt: Runtime) -> Iterator[Metrics]:
    for rows in rt.batches():
        own, other = split(rows)
        kl = max(0.0, rt.evaluate(other, mismatch)[M.KL])
        metrics = rt.update(own, functools.partial(loss, kl=kl))
        yield _with_margin(metrics)


def _with_margin(metrics: Metrics) -> Metrics:
    """With the desirable answers' mean reward above the undesirable ones', where the batch has both."""
    sides = (M.REWARDS_CHOSEN_MEAN, M.REWARDS_REJECTED_MEAN)
    if not all(name in metrics for name in sides):
        return metrics
    chosen, rejected = (metrics[name] for name in sides)
    return {**metrics, M.REWARDS_MARGIN: chosen - rejected}
