"""Log-probabilities and entropies of the vocabulary, without ever holding all logits.

The output layer may be split over tensor-parallel ranks: each computes the logits of its part of the vocabulary, a chunk of targets at a
time, and a few numbers a target are exchanged between them instead of the logits: three for a target, four for each of the likeliest tokens.

`drawn` says from which distribution the targets were drawn, if not from softmax(logits): log-probabilities and entropies are that one's.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from workbench.engine.batch import TopK
from workbench.engine.drawn import Drawn
from workbench.engine.megatron_types import Context

CHUNK = 512
"""Targets whose logits are held at once: 512 x 49,152 x 4 bytes = 96 MiB."""
_LEFT_OUT = -1e30
"""The logit of a token that could not be drawn: finite, so that 0 times it is 0."""


def target_logprobs(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    target_N: Tensor,
    *,
    first: int = 0,
    group: dist.ProcessGroup | None = None,
    chunk: int = CHUNK,
    drawn: Drawn | None = None,
) -> Tensor:
    """log softmax(hidden @ weight.T)[target] in fp32.

    Where the output weights are frozen (LoRA), the gradient with respect to `hidden` is a known vector times the incoming scalar, so it is
    made in the forward pass from the logits at hand and they are never computed twice. Where the weights learn, the logits are recomputed.

    Args:
        hidden_ND: the last hidden states that predict the targets.
        weight_VD: the output layer, or this rank's rows of it.
        target_N: the target tokens.
        first: the token of the weight's first row.
        group: the ranks that hold the other rows. The gradient of `hidden` is then this rank's part of the sum.
        chunk: how many targets' logits are held at once.
        drawn: the distribution that the targets were drawn from, where it is another than softmax(hidden @ weight.T).

    Returns:
        logprobs_N, fp32.
    """
    return _Targets.apply(hidden_ND, weight_VD, target_N, first, _shared(group), chunk, False, drawn)[0]


def target_logprobs_and_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    target_N: Tensor,
    *,
    first: int = 0,
    group: dist.ProcessGroup | None = None,
    chunk: int = CHUNK,
    drawn: Drawn | None = None,
) -> tuple[Tensor, Tensor]:
    """As `target_logprobs`, with the entropy -sum p log p of each prediction: (logprobs_N, entropy_N), both with gradient."""
    return _Targets.apply(hidden_ND, weight_VD, target_N, first, _shared(group), chunk, True, drawn)


def top_k(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    k: int,
    *,
    first: int = 0,
    group: dist.ProcessGroup | None = None,
    chunk: int = CHUNK,
    drawn: Drawn | None = None,
) -> TopK[Tensor]:
    """The k likeliest tokens of each prediction. Arguments and gradients as for `target_logprobs`.

    Each rank takes the likeliest of its rows, and only these are exchanged. The choice itself has no gradient.
    """
    logprobs_NK, rest_N, tokens_NK = _Candidates.apply(hidden_ND, weight_VD, None, k, first, _shared(group), chunk, drawn)
    return TopK(tokens_NK, logprobs_NK, rest_N)


def logprobs_at(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    tokens_NK: Tensor,
    *,
    first: int = 0,
    group: dist.ProcessGroup | None = None,
    chunk: int = CHUNK,
    drawn: Drawn | None = None,
) -> TopK[Tensor]:
    """The log-probabilities of given tokens, K a prediction. Arguments and gradients as for `target_logprobs`."""
    logprobs_NK, rest_N, tokens_NK = _Candidates.apply(hidden_ND, weight_VD, tokens_NK, tokens_NK.shape[1], first, _shared(group), chunk, drawn)
    return TopK(tokens_NK, logprobs_NK, rest_N)


def _shared(group: dist.ProcessGroup | None) -> dist.ProcessGroup | None:
    return group if group is not None and group.size() > 1 else None


class _Chunked(Context, Protocol):
    """`learns`: whether the output layer does."""

    first: int
    chunk: int
    learns: bool
    drawn: Drawn | None


class _OfTargets(_Chunked, Protocol):
    """`unit`: whether the gradient for an incoming one is kept."""

    unit: bool
    entropy: bool


class _Targets(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _OfTargets,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        target_N: Tensor,
        first: int,
        group: dist.ProcessGroup | None,
        chunk: int,
        entropy: bool,
        drawn: Drawn | None,
    ) -> tuple[Tensor, Tensor]:
        learns = ctx.needs_input_grad[1]
        unit = ctx.needs_input_grad[0] and not learns and not entropy
        unit_grad_ND = torch.empty_like(hidden_ND) if unit else None
        logprobs_N, entropy_N, lse_N = (torch.empty(len(hidden_ND), dtype=torch.float32, device=hidden_ND.device) for _ in range(3))
        for start in range(0, len(hidden_ND), chunk):
            part = slice(start, start + chunk)
            logits_nV = _logits(hidden_ND, weight_VD, part, first, drawn)
            mine_n, row_n = _own(target_N[part], first, len(weight_VD))
            target_n = logits_nV.gather(1, row_n[:, None])[:, 0] * mine_n
            lse_N[part], mean_n, target_n = _normalise(logits_nV, target_n, group, entropy)
            logprobs_N[part] = target_n - lse_N[part]
            entropy_N[part] = lse_N[part] - mean_n
            if unit_grad_ND is not None:
                grad_nV = _of_product(_logits_grad(logits_nV, lse_N[part], mine_n, row_n), part, drawn)
                unit_grad_ND[part] = grad_nV.to(weight_VD.dtype) @ weight_VD
        ctx.first, ctx.chunk, ctx.learns, ctx.drawn = first, chunk, learns, drawn
        ctx.unit, ctx.entropy = unit_grad_ND is not None, entropy
        ctx.save_for_backward(*([unit_grad_ND] if unit else [hidden_ND, weight_VD, target_N, lse_N, entropy_N]))
        if not entropy:
            ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: _OfTargets, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_N, entropy_grad_N = grads
        if ctx.unit:
            (unit_grad_ND,) = ctx.saved_tensors
            return unit_grad_ND * grad_N[:, None].to(unit_grad_ND.dtype), *[None] * 7
        hidden_ND, weight_VD, target_N, lse_N, entropy_N = ctx.saved_tensors
        hidden_grad_ND = torch.empty_like(hidden_ND)
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if ctx.learns else None
        for start in range(0, len(hidden_ND), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits_nV = _logits(hidden_ND, weight_VD, part, ctx.first, ctx.drawn)
            mine_n, row_n = _own(target_N[part], ctx.first, len(weight_VD))
            extra_nV = _entropy_grad(logits_nV, lse_N[part], entropy_N[part], entropy_grad_N[part]) if ctx.entropy else None
            grad_nV = _logits_grad(logits_nV, lse_N[part], mine_n, row_n).mul_(grad_N[part, None])
            if extra_nV is not None:
                grad_nV += extra_nV
            grad_nV = _of_product(grad_nV, part, ctx.drawn).to(weight_VD.dtype)
            hidden_grad_ND[part] = grad_nV @ weight_VD
            if weight_grad_VD is not None:
                weight_grad_VD += grad_nV.T @ hidden_ND[part]
        return hidden_grad_ND, None if weight_grad_VD is None else weight_grad_VD.to(weight_VD.dtype), *[None] * 6


def _logits(hidden_ND: Tensor, weight_VD: Tensor, part: slice, first: int, drawn: Drawn | None) -> Tensor:
    """The logits of a part of the targets, as they were drawn from, in fp32."""
    logits_nV = (hidden_ND[part] @ weight_VD.T).float()
    if drawn is None:
        return logits_nV
    if drawn.inverse_N is not None:
        logits_nV.mul_(drawn.inverse_N[part, None])
    if drawn.kept is not None:
        logits_nV.masked_fill_(~_kept(drawn, part, first, logits_nV), _LEFT_OUT)
    return logits_nV


def _kept(drawn: Drawn, part: slice, first: int, logits_nV: Tensor) -> Tensor:
    """Which of this rank's rows each target of a part could be drawn from: booleans [n, V]."""
    assert drawn.kept is not None and drawn.starts is not None
    count, rows = logits_nV.shape
    starts = drawn.starts[part.start : part.start + count + 1]
    mine, row = _own(drawn.kept[starts[0] : starts[-1]], first, rows)
    target = torch.from_numpy(np.repeat(np.arange(count), np.diff(starts))).to(logits_nV.device)
    kept_nV = torch.zeros_like(logits_nV, dtype=torch.bool)
    kept_nV[target[mine], row[mine]] = True
    return kept_nV


def _of_product(grad_nV: Tensor, part: slice, drawn: Drawn | None) -> Tensor:
    """A gradient of the logits as that of the product of hidden states and weights."""
    return grad_nV if drawn is None or drawn.inverse_N is None else grad_nV.mul_(drawn.inverse_N[part, None])


def _own(target_n: Tensor, first: int, rows: int) -> tuple[Tensor, Tensor]:
    """Which targets lie in this rank's rows, and in which (0 for the others)."""
    row_n = target_n - first
    mine_n = (row_n >= 0) & (row_n < rows)
    return mine_n, row_n.where(mine_n, torch.zeros_like(row_n))


def _normalise(logits_nV: Tensor, target_n: Tensor, group: dist.ProcessGroup | None, entropy: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Over all ranks' rows: (log-sum-exp, the mean logit under the softmax where the entropy is wanted, the target's logit)."""
    if group is None:
        lse_n = logits_nV.logsumexp(-1)
        mean_n = ((logits_nV - lse_n[:, None]).exp_() * logits_nV).sum(-1) if entropy else lse_n
        return lse_n, mean_n, target_n
    highest_n = logits_nV.amax(-1)
    dist.all_reduce(highest_n, op=dist.ReduceOp.MAX, group=group)
    weight_nV = (logits_nV - highest_n[:, None]).exp_()
    weighted_n = (weight_nV * logits_nV).sum(-1) if entropy else torch.zeros_like(highest_n)
    sums_3n = torch.stack([weight_nV.sum(-1), weighted_n, target_n])
    dist.all_reduce(sums_3n, group=group)
    total_n, weighted_n, target_n = sums_3n
    return highest_n + total_n.log(), weighted_n / total_n, target_n


def _logits_grad(logits_nV: Tensor, lse_n: Tensor, mine_n: Tensor, row_n: Tensor) -> Tensor:
    """d logprob / d logits = onehot(target) - softmax(logits), in the logits' own memory."""
    grad_nV = logits_nV.sub_(lse_n[:, None]).exp_().neg_()
    grad_nV.scatter_add_(1, row_n[:, None], mine_n.to(grad_nV.dtype)[:, None])
    return grad_nV


def _entropy_grad(logits_nV: Tensor, lse_n: Tensor, entropy_n: Tensor, grad_n: Tensor) -> Tensor:
    """d H / d logits = -p (log p + H), times the incoming gradient."""
    logp_nV = logits_nV - lse_n[:, None]
    return logp_nV.exp().mul_(logp_nV + entropy_n[:, None]).mul_(-grad_n[:, None])


class _Candidates(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Chunked,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        tokens_NK: Tensor | None,
        k: int,
        first: int,
        group: dist.ProcessGroup | None,
        chunk: int,
        drawn: Drawn | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        count, here = len(hidden_ND), hidden_ND.device
        logprobs_NK = torch.empty(count, k, dtype=torch.float32, device=here)
        rest_N, lse_N = (torch.empty(count, dtype=torch.float32, device=here) for _ in range(2))
        chosen_NK = torch.empty(count, k, dtype=torch.int64, device=here)
        for start in range(0, count, chunk):
            part = slice(start, start + chunk)
            logits_nV = _logits(hidden_ND, weight_VD, part, first, drawn)
            chosen_NK[part] = _likeliest(logits_nV, k, first, group) if tokens_NK is None else tokens_NK[part]
            lse_N[part], rest_n, logits_nK = _masses(logits_nV, chosen_NK[part], first, group)
            logprobs_NK[part] = logits_nK - lse_N[part, None]
            rest_N[part] = rest_n - lse_N[part]
        ctx.first, ctx.chunk, ctx.learns, ctx.drawn = first, chunk, ctx.needs_input_grad[1], drawn
        ctx.save_for_backward(hidden_ND, weight_VD, chosen_NK, lse_N, rest_N)
        ctx.mark_non_differentiable(chosen_NK)
        return logprobs_NK, rest_N, chosen_NK

    @staticmethod
    def backward(ctx: _Chunked, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_NK, rest_grad_N, _ = grads
        hidden_ND, weight_VD, tokens_NK, lse_N, rest_N = ctx.saved_tensors
        rest_grad_N = rest_grad_N.masked_fill(rest_N.isneginf(), 0)
        hidden_grad_ND = torch.empty_like(hidden_ND)
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if ctx.learns else None
        for start in range(0, len(hidden_ND), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits_nV = _logits(hidden_ND, weight_VD, part, ctx.first, ctx.drawn)
            place_nK = _places(tokens_NK[part], ctx.first, len(weight_VD))
            grad_nV = _masses_grad(logits_nV, place_nK, lse_N[part], rest_N[part], grad_NK[part], rest_grad_N[part])
            grad_nV = _of_product(grad_nV, part, ctx.drawn).to(weight_VD.dtype)
            hidden_grad_ND[part] = grad_nV @ weight_VD
            if weight_grad_VD is not None:
                weight_grad_VD += grad_nV.T @ hidden_ND[part]
        return hidden_grad_ND, None if weight_grad_VD is None else weight_grad_VD.to(weight_VD.dtype), *[None] * 6


def _likeliest(logits_nV: Tensor, k: int, first: int, group: dist.ProcessGroup | None) -> Tensor:
    """The k likeliest tokens of all ranks' rows [n, k], the likeliest first, and of equally likely ones the lower number."""
    row_nk = _highest(logits_nV, min(k, logits_nV.shape[1]))
    if group is None:
        return row_nk + first
    own_2nk = torch.stack([logits_nV.gather(1, row_nk), (row_nk + first).float()])
    own_2nk = F.pad(own_2nk, (0, k - own_2nk.shape[2]), value=-torch.inf)  # a rank with fewer rows
    parts = [torch.empty_like(own_2nk) for _ in range(group.size())]
    dist.all_gather(parts, own_2nk, group=group)
    value_nC, token_nC = torch.cat(parts, dim=2)
    order_nC = value_nC.sort(dim=1, descending=True, stable=True).indices
    return token_nC.gather(1, order_nC[:, :k]).long()


def _highest(logits_nV: Tensor, k: int) -> Tensor:
    """The places of a row's k highest logits, the highest first, and of equal ones the lower place."""
    value_nk, row_nk = logits_nV.topk(k, dim=1)
    row_nk = row_nk.sort(dim=1).values
    lowest_n1 = value_nk[:, -1:]
    tied_n = (logits_nV >= lowest_n1).sum(1) > k  # topk may have taken any of the equals
    if tied_n.any():
        logits_tV, lowest_t1 = logits_nV[tied_n], lowest_n1[tied_n]
        above_tV, level_tV = logits_tV > lowest_t1, logits_tV == lowest_t1
        room_t1 = k - above_tV.sum(1, keepdim=True)
        row_nk[tied_n] = (above_tV | (level_tV & (level_tV.cumsum(1) <= room_t1))).nonzero()[:, 1].view(-1, k)
    order_nk = logits_nV.gather(1, row_nk).sort(dim=1, descending=True, stable=True).indices
    return row_nk.gather(1, order_nk)


def _places(tokens_nK: Tensor, first: int, rows: int) -> Tensor:
    """Where the tokens lie in this rank's rows; `rows` for those of other ranks."""
    mine_nK, row_nK = _own(tokens_nK, first, rows)
    return row_nK.masked_fill(~mine_nK, rows)


def _masses(logits_nV: Tensor, tokens_nK: Tensor, first: int, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor, Tensor]:
    """Over all ranks' rows: (log-sum-exp, log-sum-exp of all but the tokens, the tokens' logits [n, K])."""
    place_nK = _places(tokens_nK, first, logits_nV.shape[1])
    wide_nV = F.pad(logits_nV, (0, 1))  # a column for the tokens of other ranks
    logits_nK = wide_nV.gather(1, place_nK)
    others_nV = wide_nV.scatter_(1, place_nK, -torch.inf)[:, :-1]
    if group is None:
        return logits_nV.logsumexp(-1), others_nV.logsumexp(-1), logits_nK
    highest_2n = torch.stack([logits_nV.amax(-1), others_nV.amax(-1)])
    dist.all_reduce(highest_2n, op=dist.ReduceOp.MAX, group=group)
    highest_2n.clamp_(min=torch.finfo(highest_2n.dtype).min)  # there may be no others: their sum is 0
    sums_2n = torch.stack(
        [(each_nV - highest_n[:, None]).exp_().sum(-1) for each_nV, highest_n in zip((logits_nV, others_nV), highest_2n, strict=True)]
    )
    sums = torch.cat([sums_2n, logits_nK.T])
    dist.all_reduce(sums, group=group)
    lse_n, rest_n = highest_2n + sums[:2].log()
    return lse_n, rest_n, sums[2:].T


def _masses_grad(logits_nV: Tensor, place_nK: Tensor, lse_n: Tensor, rest_n: Tensor, grad_nK: Tensor, rest_grad_n: Tensor) -> Tensor:
    """The incoming gradients times d logprob / d logits = onehot - p and d rest / d logits = q - p, where q is p among the others, which sum to 1."""
    wide_nV = F.pad(logits_nV - lse_n[:, None], (0, 1))
    from_rest_nV = (wide_nV - rest_n[:, None]).exp_().mul_(rest_grad_n[:, None]).scatter_(1, place_nK, 0.0)
    grad_nV = wide_nV.exp_().mul_(-(grad_nK.sum(-1) + rest_grad_n)[:, None]).add_(from_rest_nV)
    return grad_nV.scatter_add_(1, place_nK, grad_nK)[:, :-1]
