"""Likelihoods over whole ratings: an attribute's levels from the least to the greatest."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as nn
from torch import Tensor

Likelihood = Literal["cumulative", "categorical"]


def outputs(levels: int, likelihood: Likelihood) -> int:
    """How many numbers of a head describe one attribute."""
    return levels if likelihood == "categorical" else levels - 1


def probabilities(scores_SK: Tensor, attributes: int, levels: int, likelihood: Likelihood) -> Tensor:
    """P(level) of each of a head's attributes: [S, K] to [S, attributes, levels]."""
    return log_probabilities(scores_SK.view(len(scores_SK), attributes, outputs(levels, likelihood)), likelihood).exp()


def log_probabilities(scores: Tensor, likelihood: Likelihood) -> Tensor:
    """log P(level) from what a head gives of an attribute.

    categorical: softmax of L logits. cumulative: L - 1 numbers z, of which the first is the logit of P(level > 0) and each further one widens the step
    down to the next: P(level > j) = sigmoid(z_0 - sum of softplus(z_k) for k = 1 … j), a cumulative link model (McCullagh, 1980) whose thresholds depend
    on the text, in order by construction.

    Args:
        scores: [..., L] or [..., L - 1].

    Returns:
        [..., L], each summing to 1 in probability.
    """
    if likelihood == "categorical":
        return scores.log_softmax(-1)
    first, gaps = scores[..., :1], nn.softplus(scores[..., 1:])
    above = torch.cat([first, first - gaps.cumsum(-1)], -1)  # logit of P(level > j), falling
    inner = nn.logsigmoid(above[..., :-1]) + nn.logsigmoid(-above[..., 1:]) + _log1mexp(above[..., :-1] - above[..., 1:])
    return torch.cat([nn.logsigmoid(-above[..., :1]), inner, nn.logsigmoid(above[..., -1:])], -1)


def _log1mexp(gap: Tensor) -> Tensor:
    """log(1 - exp(-gap)) of positive gaps; sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a))."""
    return torch.log(-torch.expm1(-gap.clamp(min=1e-7)))


def negative_log_likelihood(log_probs_RL: Tensor, levels_R: Tensor) -> Tensor:
    """-log P of each rating, counted in levels from 0. A rating between two levels, such as a mean of several people's, counts both by its distance.

    Returns nll_R.
    """
    low_R = levels_R.floor().clamp(0, log_probs_RL.shape[-1] - 1).long()
    high_R = (low_R + 1).clamp(max=log_probs_RL.shape[-1] - 1)
    part_R = (levels_R - low_R).to(log_probs_RL)
    low, high = (log_probs_RL.gather(-1, at[:, None])[:, 0] for at in (low_R, high_R))
    return -((1 - part_R) * low + torch.where(part_R > 0, part_R * high, torch.zeros_like(high)))


def expectation(log_probs: Tensor) -> Tensor:
    """The mean level, from 0: [..., L] to [...]."""
    return (log_probs.exp() * torch.arange(log_probs.shape[-1], device=log_probs.device, dtype=log_probs.dtype)).sum(-1)
