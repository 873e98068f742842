"""A model's outputs as one float tensor, which is what megatron's schedule carries, and back.

The columns [N, C] are: the target's log-probability, the entropy, and for K tokens (the likeliest, then those that the rows name) K
log-probabilities, the rest's and K token numbers. The log-probabilities alone are [N], scores [S, K].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from workbench.engine.batch import Given, TopK
from workbench.settings.outputs import Outputs

EXACT = 2**24
"""Integers below it are exact in fp32: the largest vocabulary whose tokens travel so."""


def joined(given: Given[Tensor]) -> Tensor:
    """One float tensor of all that was given."""
    if given.scores_SK is not None:
        return given.scores_SK
    columns = list(_columns(given))
    if given.logprobs_N is not None and len(columns) == 1:
        return given.logprobs_N
    return torch.cat(columns, dim=1)


def _columns(given: Given[Tensor]) -> Iterator[Tensor]:
    for each_N in (given.logprobs_N, given.entropy_N):
        if each_N is not None:
            yield each_N[:, None]
    for tokens in (given.top_k, given.at):
        if tokens is not None:
            yield from (tokens.logprobs_NK, tokens.rest_N[:, None], tokens.tokens_NK.float())


def parted(output: Tensor, wanted: Outputs) -> Given[Tensor]:
    """What `joined` made one tensor of; the gradient goes through."""
    if wanted.scores:
        return Given(scores_SK=output)
    if output.ndim == 1:
        return Given(logprobs_N=output)
    single = wanted.logprobs + wanted.entropy
    top = [wanted.top_k, 1, wanted.top_k] if wanted.top_k else []
    named = (output.shape[1] - single - sum(top) - 1) // 2
    at = [named, 1, named] if wanted.at is not None else []
    parts = iter(output.split([*[1] * single, *top, *at], dim=1))
    return Given(
        logprobs_N=next(parts)[:, 0] if wanted.logprobs else None,
        entropy_N=next(parts)[:, 0] if wanted.entropy else None,
        top_k=_tokens(parts) if top else None,
        at=_tokens(parts) if at else None,
    )


def _tokens(parts: Iterator[Tensor]) -> TopK[Tensor]:
    logprobs_NK, rest_N1, tokens_NK = next(parts), next(parts), next(parts)
    return TopK(tokens_NK.detach().long(), logprobs_NK, rest_N1[:, 0])


def by_row(output: Tensor, wanted: Outputs, sizes: Sequence[int]) -> list[Given[np.ndarray]]:
    """A microbatch's outputs cut into its rows' parts of `sizes`, as arrays in fp32 (token numbers are int64)."""
    return [_arrays(parted(piece, wanted)) for piece in output.detach().float().cpu().split(list(sizes))] if sizes else []


def _arrays(given: Given[Tensor]) -> Given[np.ndarray]:
    def array(each: Tensor | None) -> np.ndarray | None:
        return None if each is None else each.numpy()

    def tokens(each: TopK[Tensor] | None) -> TopK[np.ndarray] | None:
        return None if each is None else TopK(each.tokens_NK.numpy(), each.logprobs_NK.numpy(), each.rest_N.numpy())

    return Given(array(given.logprobs_N), array(given.entropy_N), tokens(given.top_k), tokens(given.at), array(given.scores_SK))
