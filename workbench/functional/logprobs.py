"""Log-probabilities of chosen tokens, without ever holding all logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 512
"""Targets whose logits are held at once: 512 x 49,152 x 4 bytes = 96 MiB."""


def target_logprobs(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, chunk: int = CHUNK) -> Tensor:
    """log softmax(hidden @ weight.T)[target] in fp32, `chunk` targets at a time.

    Where the output weights are frozen (LoRA), the gradient with respect to `hidden` is a known vector times the incoming scalar, so it is
    made in the forward pass from the logits at hand and they are never computed twice. Where the weights learn, the logits are recomputed.

    Args:
        hidden_ND: the last hidden states that predict the targets.
        weight_VD: the output layer (V: vocabulary).
        target_N: the target tokens.

    Returns:
        logprobs_N, fp32.
    """
    return _TargetLogprobs.apply(hidden_ND, weight_VD, target_N, chunk)  # type: ignore[no-any-return]


class _TargetLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor, chunk: int) -> Tensor:
        frozen = not ctx.needs_input_grad[1]
        want_hidden = frozen and ctx.needs_input_grad[0]
        unit_grad_ND = torch.empty_like(hidden_ND) if want_hidden else None
        logprobs_N = torch.empty(len(hidden_ND), dtype=torch.float32, device=hidden_ND.device)
        for start in range(0, len(hidden_ND), chunk):
            part = slice(start, start + chunk)
            logits_nV = (hidden_ND[part] @ weight_VD.T).float()
            lse_n = logits_nV.logsumexp(-1)
            logprobs_N[part] = logits_nV.gather(1, target_N[part, None])[:, 0] - lse_n
            if unit_grad_ND is not None:
                unit_grad_ND[part] = _logits_grad(logits_nV, lse_n, target_N[part]).to(weight_VD.dtype) @ weight_VD
        ctx.chunk = chunk
        ctx.frozen = frozen
        if frozen:
            ctx.save_for_backward(*([unit_grad_ND] if unit_grad_ND is not None else []))
        else:
            ctx.save_for_backward(hidden_ND, weight_VD, target_N)
        return logprobs_N

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        if ctx.frozen:
            (unit_grad_ND,) = ctx.saved_tensors
            return unit_grad_ND * grad_N[:, None].to(unit_grad_ND.dtype), None, None, None
        hidden_ND, weight_VD, target_N = ctx.saved_tensors
        hidden_grad_ND = torch.empty_like(hidden_ND)
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
        for start in range(0, len(hidden_ND), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            logits_nV = (hidden_ND[part] @ weight_VD.T).float()
            grad_nV = _logits_grad(logits_nV, logits_nV.logsumexp(-1), target_N[part]).mul_(grad_N[part, None]).to(weight_VD.dtype)
            hidden_grad_ND[part] = grad_nV @ weight_VD
            weight_grad_VD += grad_nV.T @ hidden_ND[part]
        return hidden_grad_ND, weight_grad_VD.to(weight_VD.dtype), None, None


def _logits_grad(logits_nV: Tensor, lse_n: Tensor, target_n: Tensor) -> Tensor:
    """d logprob / d logits = onehot(target) - softmax(logits), in the logits' own memory."""
    grad_nV = logits_nV.sub_(lse_n[:, None]).exp_().neg_()
    grad_nV.scatter_add_(1, target_n[:, None], torch.ones_like(lse_n)[:, None])
    return grad_nV
