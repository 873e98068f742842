"""Losses of policies and value functions that learn from sampled tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped(
    logprobs_N: Tensor, old_logprobs_N: Tensor, advantages_N: Tensor, clip_low: float, clip_high: float, dual_clip: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """-min(rho A, clip(rho, 1 - low, 1 + high) A) with rho = exp(logprob - old): PPO's surrogate (arXiv 1707.06347, eq. 7); a high above
    the low is DAPO's clip-higher (arXiv 2503.14476, eq. 10).

    Args:
        dual_clip: c > 1; for A < 0 the surrogate is c A at least (Ye et al., arXiv 1912.09729, eq. 5), whatever the ratio; 0: no such bound.

    Returns:
        (loss_N, ratio_N, clipped_N: True where a bound decides, so that there is no gradient).
    """
    ratio_N = (logprobs_N - old_logprobs_N).exp()
    free_N, bounded_N = ratio_N * advantages_N, ratio_N.clamp(1 - clip_low, 1 + clip_high) * advantages_N
    surrogate_N, clipped_N = torch.minimum(free_N, bounded_N), bounded_N < free_N
    if dual_clip:
        floor_N = torch.where(advantages_N < 0, dual_clip * advantages_N, -torch.inf)
        surrogate_N, clipped_N = torch.maximum(surrogate_N, floor_N), clipped_N | (floor_N > surrogate_N)
    return -surrogate_N, ratio_N, clipped_N.detach()


def clipped_value(values_N: Tensor, old_values_N: Tensor, returns_N: Tensor, clip: float) -> Tensor:
    """0.5 max((v - R)^2, (v_clip - R)^2), v_clip within `clip` of the old value (NeMo-Aligner's critic loss). Returns loss_N."""
    bounded_N = old_values_N + (values_N - old_values_N).clamp(-clip, clip)
    return 0.5 * torch.maximum((values_N - returns_N).square(), (bounded_N - returns_N).square())


def truncated_importance(proximal_logprobs_N: Tensor, behaviour_logprobs_N: Tensor, cap: float) -> Tensor:
    """min(exp(proximal - behaviour), cap), without gradient: corrects for tokens sampled by another policy (or engine) than the trainer's
    (decoupled PPO: arXiv 2110.00641). Returns weights_N.
    """
    return (proximal_logprobs_N - behaviour_logprobs_N).exp().clamp(max=cap).detach()
