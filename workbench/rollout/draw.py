"""How an engine that sees the logits draws a token: by a uniform number of the answer's own, so that it depends on no other answer."""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.rollout.base import Sampling


def draw(logits_BV: Tensor, sampling: Sampling, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """A token for each row by the inverse of its cumulative distribution at a uniform number, and its log-probability at temperature 1.

    top-k and top-p (nucleus: Holtzman et al., arXiv 1904.09751) cut the distribution after the temperature.
    """
    lse_B = logits_BV.logsumexp(-1)
    if sampling.temperature == 0:
        token_B = logits_BV.argmax(-1)
    else:
        probs_BV = (logits_BV if sampling.temperature == 1 else logits_BV / sampling.temperature).softmax(-1)
        if sampling.top_k or sampling.top_p < 1:
            probs_BV = _cut(probs_BV, sampling.top_k, sampling.top_p)
        cumulative_BV = probs_BV.cumsum(-1)
        wanted_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
        token_B = torch.searchsorted(cumulative_BV, wanted_B1, right=True)[:, 0].clamp(max=logits_BV.shape[1] - 1)
    return token_B, logits_BV.gather(1, token_B[:, None])[:, 0] - lse_B


def _cut(probs_BV: Tensor, top_k: int, top_p: float) -> Tensor:
    """The distribution with 0 for tokens that are not among the `top_k` likeliest, nor in the smallest set whose share reaches `top_p`."""
    count = min(top_k, probs_BV.shape[1]) if top_k else probs_BV.shape[1]
    highest_BK, token_BK = probs_BV.topk(count)
    before_BK = highest_BK.cumsum(-1) - highest_BK
    kept_BK = highest_BK.where(before_BK < top_p * highest_BK.sum(-1, keepdim=True), torch.zeros_like(highest_BK))
    return torch.zeros_like(probs_BV).scatter(1, token_BK, kept_BK)
