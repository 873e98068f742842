"""The last layer: log-probabilities and entropies of the vocabulary, without ever holding all logits; or scores of sequences.

The output layer may be split over tensor-parallel ranks: each computes the logits of its part of the vocabulary, a chunk of targets at a
time, and three numbers a target are reduced between them instead of the logits.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from megatron.core.tensor_parallel import gather_from_tensor_model_parallel_region
from torch import Tensor, nn

CHUNK = 512
"""Targets whose logits are held at once: 512 x 49,152 x 4 bytes = 96 MiB."""


class VocabularyHead(nn.Module):
    """In place of megatron's output layer, whose weights it takes over (None where the embedding's serve).

    It is called as a module, so that megatron, which hangs the gathering of updated weights on the call, has gathered them.
    """

    def __init__(self, weight_VD: nn.Parameter | None, num_tokens: int, rank: int, group: dist.ProcessGroup):
        super().__init__()
        self.weight = weight_VD
        self.num_tokens, self.rank, self.group = num_tokens, rank, group

    def forward(self, hidden_ND: Tensor, target_N: Tensor | None, shared_VD: Tensor | None, entropy: bool = False) -> Tensor:
        """logprobs_N of the targets, with `entropy` and the entropies [N, 2]; or all logits [N, V] where there are no targets."""
        weight_VD = self.weight if shared_VD is None else shared_VD
        assert weight_VD is not None
        if target_N is None:
            return gather_from_tensor_model_parallel_region(hidden_ND @ weight_VD.T, self.group)[..., : self.num_tokens]
        first = self.rank * len(weight_VD)
        # Without the rows for tokens that there are not.
        weight_VD = weight_VD[: max(0, self.num_tokens - first)]
        if entropy:
            return torch.stack(target_logprobs_and_entropy(hidden_ND, weight_VD, target_N, first=first, group=self.group), dim=1)
        return target_logprobs(hidden_ND, weight_VD, target_N, first=first, group=self.group)


class ScoreHead(nn.Linear):
    """hidden [S, D] to scores_SK, in fp32. It starts at N(0, 1 / (D + 1)) (Stiennon et al., arXiv 2009.01325, appendix B.1)."""

    def __init__(self, hidden_size: int, num_scores: int, seed: int):
        super().__init__(hidden_size, num_scores, bias=False)
        with torch.no_grad():
            self.weight.normal_(0, (hidden_size + 1) ** -0.5, generator=torch.Generator().manual_seed(seed))

    def forward(self, hidden_SD: Tensor) -> Tensor:
        return F.linear(hidden_SD.float(), self.weight.float())


def target_logprobs(
    hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, *, first: int = 0, group: dist.ProcessGroup | None = None, chunk: int = CHUNK
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

    Returns:
        logprobs_N, fp32.
    """
    return _Targets.apply(hidden_ND, weight_VD, target_N, first, _shared(group), chunk, False)[0]  # type: ignore[no-any-return]


def target_logprobs_and_entropy(
    hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, *, first: int = 0, group: dist.ProcessGroup | None = None, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """As `target_logprobs`, with the entropy -sum p log p of each prediction: (logprobs_N, entropy_N), both with gradient."""
    return _Targets.apply(hidden_ND, weight_VD, target_N, first, _shared(group), chunk, True)  # type: ignore[no-any-return]


def _shared(group: dist.ProcessGroup | None) -> dist.ProcessGroup | None:
    return group if group is not None and group.size() > 1 else None


class _Targets(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND, weight_VD, target_N, first, group, chunk, entropy):  # type: ignore[no-untyped-def]
        learns = ctx.needs_input_grad[1]
        unit = ctx.needs_input_grad[0] and not learns and not entropy
        unit_grad_ND = torch.empty_like(hidden_ND) if unit else None
        logprobs_N, entropy_N, lse_N = (torch.empty(len(hidden_ND), dtype=torch.float32, device=hidden_ND.device) for _ in range(3))
        for start in range(0, len(hidden_ND), chunk):
            part = slice(start, start + chunk)
            logits_nV = (hidden_ND[part] @ weight_VD.T).float()
            mine_n, row_n = _own(target_N[part], first, len(weight_VD))
            target_n = logits_nV.gather(1, row_n[:, None])[:, 0] * mine_n
            lse_N[part], mean_n, target_n = _normalise(logits_nV, target_n, group, entropy)
            logprobs_N[part] = target_n - lse_N[part]
            entropy_N[part] = lse_N[part] - mean_n
            if unit_grad_ND is not None:
                unit_grad_ND[part] = _logits_grad(logits_nV, lse_N[part], mine_n, row_n).to(weight_VD.dtype) @ weight_VD
        ctx.first, ctx.chunk, ctx.learns = first, chunk, learns
        ctx.unit, ctx.entropy = unit_grad_ND is not None, entropy
        ctx.save_for_backward(*([unit_grad_ND] if unit else [hidden_ND, weight_VD, target_N, lse_N, entropy_N]))
        if not entropy:
            ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor, entropy_grad_N: Tensor):  # type: ignore[no-untyped-def, override]
        if ctx.unit:
            (unit_grad_ND,) = ctx.saved_tensors
            return unit_grad_ND * grad_N[:, None].to(unit_grad_ND.dtype), *[None] * 6
        hidden_ND, weight_VD, target_N, lse_N, entropy_N = ctx.saved_tensors
        hidden_grad_ND = torch.empty_like(hidden_ND)
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if ctx.learns else None
        for start in range(0, len(hidden_ND), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits_nV = (hidden_ND[part] @ weight_VD.T).float()
            mine_n, row_n = _own(target_N[part], ctx.first, len(weight_VD))
            extra_nV = _entropy_grad(logits_nV, lse_N[part], entropy_N[part], entropy_grad_N[part]) if ctx.entropy else None
            grad_nV = _logits_grad(logits_nV, lse_N[part], mine_n, row_n).mul_(grad_N[part, None])
            if extra_nV is not None:
                grad_nV += extra_nV
            grad_nV = grad_nV.to(weight_VD.dtype)
            hidden_grad_ND[part] = grad_nV @ weight_VD
            if weight_grad_VD is not None:
                weight_grad_VD += grad_nV.T @ hidden_ND[part]
        return hidden_grad_ND, None if weight_grad_VD is None else weight_grad_VD.to(weight_VD.dtype), *[None] * 5


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
