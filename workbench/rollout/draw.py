"""How an engine that sees the logits draws a token: by a uniform number of the answer's own, so that it depends on no other answer."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from workbench.rollout.base import Sampling

_BELOW_1 = 1 - 2**-24
"""The largest fp32 number below 1: a uniform number that was rounded to 1 would draw beyond the last token."""


class Draw(NamedTuple):
    """A token for each row, its log-probability, and with `Sampling.kept` which tokens it was drawn among."""

    token_B: Tensor
    logprob_B: Tensor
    kept_BV: Tensor | None = None


def draw(logits_BV: Tensor, sampling: Sampling, uniform_B: Tensor) -> Draw:
    """A token for each row by the inverse of its cumulative distribution at a uniform number.

    top-k and top-p (nucleus: Holtzman et al., arXiv 1904.09751) cut the distribution after the temperature. The log-probability is that of
    softmax(logits / temperature), at temperature 0 of softmax(logits); with `sampling.kept` that of the cut distribution.
    """
    if sampling.temperature == 0:
        token_B = logits_BV.argmax(-1)
        return Draw(token_B, _at(logits_BV, token_B) - logits_BV.logsumexp(-1))
    if sampling.temperature != 1:
        logits_BV = logits_BV / sampling.temperature
    probs_BV = _cut(logits_BV.softmax(-1), sampling.top_k, sampling.top_p) if sampling.top_k or sampling.top_p < 1 else logits_BV.softmax(-1)
    cumulative_BV = probs_BV.cumsum(-1)
    wanted_B1 = uniform_B.clamp(max=_BELOW_1)[:, None] * cumulative_BV[:, -1:]
    token_B = torch.searchsorted(cumulative_BV, wanted_B1, right=True)[:, 0].clamp(max=logits_BV.shape[1] - 1)
    if not sampling.kept:
        return Draw(token_B, _at(logits_BV, token_B) - logits_BV.logsumexp(-1))
    kept_BV = probs_BV > 0
    return Draw(token_B, _at(logits_BV, token_B) - logits_BV.masked_fill(~kept_BV, -torch.inf).logsumexp(-1), kept_BV)


def kept_tokens(kept_BV: Tensor) -> list[np.ndarray]:
    """The tokens that each row was drawn among, ascending."""
    tokens, counts = kept_BV.nonzero()[:, 1].to(torch.int32).cpu().numpy(), kept_BV.sum(1).cpu().numpy()
    return np.split(tokens, np.cumsum(counts)[:-1])


def _at(logits_BV: Tensor, token_B: Tensor) -> Tensor:
    return logits_BV.gather(1, token_B[:, None])[:, 0]


def _cut(probs_BV: Tensor, top_k: int, top_p: float) -> Tensor:
    """The distribution with 0 for tokens that are not among the `top_k` likeliest, nor in the smallest set whose share reaches `top_p`."""
    count = min(top_k, probs_BV.shape[1]) if top_k else probs_BV.shape[1]
    highest_BK, token_BK = probs_BV.topk(count)
    before_BK = highest_BK.cumsum(-1) - highest_BK
    kept_BK = highest_BK.where(before_BK < top_p * highest_BK.sum(-1, keepdim=True), torch.zeros_like(highest_BK))
    return torch.zeros_like(probs_BV).scatter(1, token_BK, kept_BK)
