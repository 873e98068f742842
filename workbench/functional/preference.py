"""Direct preference losses. In all of them D is the difference, chosen minus rejected, of the log-ratios policy / reference."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as nn
from torch import Tensor


def dpo(delta_B: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """-log sigmoid(beta D): DPO (Rafailov et al., arXiv 2305.18290, eq. 7); with smoothing eps, conservative DPO:
    -(1 - eps) log sigmoid(beta D) - eps log sigmoid(-beta D) (Mitchell 2023; eps is the probability that a label is flipped).

    Returns loss_B.
    """
    return -(1 - label_smoothing) * nn.logsigmoid(beta * delta_B) - label_smoothing * nn.logsigmoid(-beta * delta_B)


def ipo(delta_B: Tensor, beta: float) -> Tensor:
    """(D - 1 / (2 beta))^2: IPO (Azar et al., arXiv 2310.12036, eq. 17, with tau = beta). Returns loss_B."""
    return (delta_B - 1 / (2 * beta)).square()


def hinge(delta_B: Tensor, beta: float) -> Tensor:
    """max(0, 1 - beta D): SLiC's hinge on the log-ratios (Zhao et al., arXiv 2305.10425). Returns loss_B."""
    return torch.relu(1 - beta * delta_B)


def rpo_sq(delta_B: Tensor, reward_delta_B: Tensor, beta: float, eta: float) -> Tensor:
    """(beta D - eta Dr)^2: reward-aware preference optimization, squared distance (NeMo-Aligner). Returns loss_B."""
    return (beta * delta_B - eta * reward_delta_B).square()


def rpo_kl(delta_B: Tensor, reward_delta_B: Tensor, beta: float, eta: float, forward: bool) -> Tensor:
    """KL between the Bernoullis p = sigmoid(eta Dr) and q = sigmoid(beta D): KL(q || p) forward, KL(p || q) backward.

    These are NeMo-Aligner's names. The textbook's are the other way round: there the forward KL is that from the given to the learnt distribution.

    Returns loss_B.
    """
    given, learnt = eta * reward_delta_B, beta * delta_B
    first, second = (learnt, given) if forward else (given, learnt)
    p = torch.sigmoid(first)
    return p * (nn.logsigmoid(first) - nn.logsigmoid(second)) + (1 - p) * (nn.logsigmoid(-first) - nn.logsigmoid(-second))


def log_odds(logprob_B: Tensor) -> Tensor:
    """log p - log(1 - p) of log-probabilities (ORPO: Hong et al., arXiv 2403.07691, eq. 4), exact near both ends. Returns values of the same shape."""
    below_B = logprob_B.clamp(max=-1e-6)
    rest_B = torch.where(below_B < -math.log(2), torch.log1p(-below_B.exp()), torch.log(-torch.expm1(below_B)))
    return logprob_B - rest_B


def kto(
    log_ratio_B: Tensor, desirable_B: Tensor, kl: float | Tensor, beta: float, desirable_weight: float = 1.0, undesirable_weight: float = 1.0
) -> Tensor:
    """lambda_y - v, where v = lambda_D sigmoid(beta (r - z0)) for a desirable answer, lambda_U sigmoid(beta (z0 - r)) for an undesirable one
    (KTO: Ethayarajh et al., arXiv 2402.01306, eq. 8).

    Args:
        log_ratio_B: r, the answer's log-ratio policy / reference.
        desirable_B: True (or 1) where the answer is desirable.
        kl: z0, the reference point; see `kto_reference_point`.

    Returns:
        loss_B, between 0 and the weight.
    """
    desirable_B = desirable_B.bool()
    weight_B = torch.where(desirable_B, desirable_weight, undesirable_weight)
    return weight_B * (1 - torch.sigmoid(beta * torch.where(desirable_B, log_ratio_B - kl, kl - log_ratio_B)))


def kto_reference_point(log_ratio_M: Tensor) -> Tensor:
    """z0 = max(0, mean log-ratio of answers to other prompts): KTO's estimate of KL(policy || reference). Not differentiated. Returns a scalar."""
    return log_ratio_M.detach().mean().clamp(min=0)
