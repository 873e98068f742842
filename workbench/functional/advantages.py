"""How much better than expected: advantages of tokens (GAE) and of whole answers against others to the same prompt.

[B, T] arrays are padded on the right; mask_BT is 1 on an answer's tokens and 0 on the padding.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation (Schulman et al., arXiv 1506.02438, eq. 16): A_t = delta_t + gamma lambda A_{t+1} with
    delta_t = r_t + gamma V_{t+1} - V_t; after an answer's last token there is neither value nor advantage.

    Returns (advantages_BT, returns_BT = advantages + values), 0 on the padding.
    """
    advantages_BT = torch.zeros_like(rewards_BT)
    next_advantage_B = next_value_B = torch.zeros_like(rewards_BT[:, 0])
    for t in reversed(range(rewards_BT.shape[1])):
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        next_advantage_B = (delta_B + gamma * lam * next_advantage_B) * mask_BT[:, t]
        next_value_B = values_BT[:, t] * mask_BT[:, t]
        advantages_BT[:, t] = next_advantage_B
    return advantages_BT, (advantages_BT + values_BT) * mask_BT


def whiten(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """To mean 0 and variance 1 over the masked places; 0 elsewhere."""
    count = mask_BT.sum()
    mean = (values_BT * mask_BT).sum() / count
    variance = ((values_BT - mean).square() * mask_BT).sum() / count
    return (values_BT - mean) * (variance + 1e-8).rsqrt() * mask_BT


def leave_one_out(rewards_PK: Tensor) -> Tensor:
    """Each answer's reward minus the mean of its prompt's other answers: RLOO's baseline (Kool et al. 2019; arXiv 2402.14740, eq. 9).

    Raises:
        ValueError: fewer than two answers to a prompt.
    """
    samples = rewards_PK.shape[1]
    if samples < 2:
        raise ValueError("a leave-one-out baseline needs two or more answers to each prompt")
    return rewards_PK - (rewards_PK.sum(1, keepdim=True) - rewards_PK) / (samples - 1)


def group_normalised(rewards_PK: Tensor, scale: bool = True) -> Tensor:
    """(r - mean) / (std + 1e-4) over each prompt's answers (GRPO: arXiv 2402.03300, section 4.1.2); without `scale` only r - mean."""
    centred_PK = rewards_PK - rewards_PK.mean(1, keepdim=True)
    return centred_PK / (rewards_PK.std(1, keepdim=True) + 1e-4) if scale else centred_PK
