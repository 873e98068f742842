"""Losses of models that score answers: by pairs (ranking) or by given ratings (regression)."""

from __future__ import annotations

import torch.nn.functional as nn
from torch import Tensor


def ranking(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """-log sigmoid(r_c - r_r): Bradley-Terry (Ouyang et al., arXiv 2203.02155, eq. 1). Returns loss_B."""
    return -nn.logsigmoid(chosen_B - rejected_B)


def ranking_margin(chosen_B: Tensor, rejected_B: Tensor, margin_B: Tensor) -> Tensor:
    """-log sigmoid(r_c - r_r - m): the scores must be m apart (Llama 2, arXiv 2307.09288, eq. 2). Returns loss_B."""
    return -nn.logsigmoid(chosen_B - rejected_B - margin_B)


def ranking_scaled(chosen_B: Tensor, rejected_B: Tensor, margin_B: Tensor) -> Tensor:
    """-m log sigmoid(r_c - r_r): a pair counts as often as its margin says (HelpSteer2-Preference, arXiv 2410.01257, eq. 3). Returns loss_B."""
    return margin_B * ranking(chosen_B, rejected_B)


def masked_squared_error(scores_BK: Tensor, targets_BK: Tensor, present_BK: Tensor) -> Tensor:
    """(score - rating)^2 of each rating that there is, all of equal weight: an attribute model's regression (SteerLM, arXiv 2310.05344, section 3.1).

    Args:
        present_BK: True where the row has this rating; the target there is finite, elsewhere it may be anything.

    Returns:
        loss_R, one value a rating, row by row; their mean is that over all ratings of a batch, however many a row has.
    """
    return (scores_BK[present_BK] - targets_BK[present_BK]).square()
